"""Why a model did not run on its first rows, and what its author may write instead.

The error says where it was raised, and has the one piece of advice that may help there:

    raised in        advice
    preprocess       what the hook gets and returns
    postprocess      the same
    forward          of whole numbers: PyTorch mixes them with weights of floats nowhere
    predict          what it gets
    anywhere         how to name other inputs, or to give an example

An error of the server's own, such as for outputs of None, has its advice already.
"""

from __future__ import annotations

import re
from typing import Any

from batcher.core.spec import TensorSpec
from batcher.errors import BatcherError
from batcher.models.loading import reason_of
from batcher.models.own_code import with_place

_HOOKS = {
    "preprocess": "`preprocess` gets the inputs of one request, a mapping of name to NumPy array "
    "whose first axis is the row, and returns a mapping of name to array",
    "postprocess": "`postprocess` gets the outputs of one request, a mapping of name to NumPy "
    "array whose first axis is the row, and returns a mapping of name to array",
}
_OTHER_INPUTS = (
    "If the model takes other inputs, say so: --input NAME=DTYPE[SHAPE], or an example that the "
    "model can take, --sample example.npy (or .npz, .json)"
)
_PREDICT = (
    "`predict` gets a batch: a mapping of name to array, whose first axis is the row. It gets each "
    "input by itself where its parameters have the names of the inputs"
)
_MIXES_DTYPES = re.compile(
    r"should be the same|expected scalar type|same dtype|'(Byte|Char|Short|Int|Long)'|"
    r"floating point"
)
"""PyTorch's errors where whole numbers meet floats, or functions of floats alone."""


def run_failed(model: Any, stage: str, error: BaseException) -> str:
    """Return in words that `model` did not run, and what may help.

    Args:
        model: the model that was tried.
        stage: `preprocess`, `predict` or `postprocess`, in which `error` was raised.
        error: what was raised.
    """
    inputs = ", ".join(f"{each.name} {each.describe()}" for each in model.spec.inputs)
    function = "forward" if stage == "predict" and _is_module(model) else stage
    text = (
        f"expected the model to run on a few rows of {inputs}, to show its outputs; got in "
        f"`{function}`: {with_place(reason_of(error), error)}"
    )
    return text if isinstance(error, BatcherError) else f"{text}. {_advice(model, function, error)}"


def _advice(model: Any, function: str, error: BaseException) -> str:
    """Return what may help against an `error` in `function`."""
    if function in _HOOKS:
        return _HOOKS[function]
    if function == "predict":
        return f"{_PREDICT}. {_OTHER_INPUTS}"
    whole = next(filter(_is_whole, model.spec.inputs), None)
    if whole is not None and model.preprocess is None and _MIXES_DTYPES.search(str(error)):
        return (
            f"{whole.name!r} comes as {whole.datatype.name}, and PyTorch's layers take floats: "
            f"begin `forward` with `{whole.name} = {whole.name}.float()`, and divide by 255 where "
            "the module was trained with pixels of 0 to 1"
        )
    return _OTHER_INPUTS


def _is_module(model: Any) -> bool:
    """Return whether a batch runs in `forward` of a module: classes have `predict`."""
    return not (hasattr(model, "make") and not hasattr(model, "source"))


def _is_whole(tensor: TensorSpec) -> bool:
    return tensor.datatype.numpy.kind in "iu"
