"""Whether `preprocess` takes one request of several texts of unequal lengths.

A request of one text shows nothing of that, and neither does warm-up, whose rows repeat: a hook
that returns one list of tokens for each text works until the first client sends a short and a long
text together. So both are tried, first each by itself, then in one request. A model whose clients
send one text a request is well served as it is: what was found is a note, and no reason to refuse
the model.
"""

from __future__ import annotations

import numpy as np

from batcher.core.error_text import message
from batcher.core.spec import Array
from batcher.errors import ModelContractError
from batcher.models.blank_rows import SENTENCES, blank_rows, prepared_of
from batcher.models.protocol import Arrays, Model
from batcher.models.sample import Sample, repeated

_SHORT = b"A text."

_ADVICE = (
    "preprocess may return a list of rows of unequal lengths for what is named, with a `pad`, "
    "below `prepared` in model.yaml or in `@batcher.model(prepared=…)`"
)


def uneven_texts_note(model: Model, sample: Sample | None) -> str:
    """Return why a request of unequal texts fails though each of its texts does not; else nothing.

    Inference thread.
    """
    texts = [each.name for each in model.spec.inputs if each.datatype.name == "BYTES"]
    if model.preprocess is None or not texts:
        return ""
    short = repeated(sample, 1) if sample else blank_rows(model.spec, 1, _SHORT)
    long = {
        name: _filled(array, SENTENCES) if name in texts else array for name, array in short.items()
    }
    error = _joint_error(model, short, long)
    if error is None:
        return ""
    # The server's own error says what to do.
    advice = "" if isinstance(error, ModelContractError) else f". {_ADVICE}"
    return (
        "note: a request of one text works, one of a short and a long text together fails: "
        f"{message(error)}{advice}"
    )


def _joint_error(model: Model, short: Arrays, long: Arrays) -> BaseException | None:
    """Return the error of `short` and `long` in one request; none if one of them fails alone.

    None also if both become rows of one shape. Inference thread.
    """
    try:
        alone = [prepared_of(model, each)[0] for each in (short, long)]
    # Whatever the hook has against these texts, `sys.exit()` included: it may take others.
    except (Exception, SystemExit):
        return None
    if _shapes(alone[0]) == _shapes(alone[1]):
        return None
    try:
        prepared_of(model, {name: np.concatenate([short[name], long[name]]) for name in short})
    except (Exception, SystemExit) as err:
        return err
    return None


def _filled(array: Array, text: bytes) -> Array:
    filled = array.copy()
    filled.fill(text)
    return filled


def _shapes(arrays: Arrays) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays.values()]
