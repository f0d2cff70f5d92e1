"""One batch on a model, run as the server runs it, with every breach noted.

    requests -> preprocess, each alone -> collate -> predict -> split -> postprocess, each alone

The server stops at the first breach of a batch, while a check wants to know all of them. So
`Runner` uses the server's own parts (`Batch`, the model's buffers, the rules of `hook_contract`),
but notes a breach in `Findings` where the server raises, and goes on with the outputs that are in
order.

Outputs are copied as soon as `predict` returns. A model that uses their memory again must not
change answers that are compared later.

`batcher check` words breaches in its own way: with all shapes, and with file and line of the
model's code. Therefore the error texts of `hook_contract` are not used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from batcher.app.checking import rules
from batcher.app.checking.contract import Findings, Rule
from batcher.app.checking.samples import Row
from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.core.spec import Array, ModelSpec, TensorSpec, check_outputs, has_rows, shape_text
from batcher.errors import ModelContractError
from batcher.models.hook_contract import as_arrays, check_answer, common_rows
from batcher.models.own_code import own_place
from batcher.models.protocol import Arrays, Hook, Model

Answer = Mapping[str, Array]
"""The outputs that one request gets; outputs that broke the contract are left out."""


@dataclass(frozen=True, slots=True)
class Run:
    """A batch that ran.

    Attributes:
        answers: one for each request, in the order of the requests; empty if the batch failed.
        seconds: the time in `predict` alone.
    """

    answers: tuple[Answer, ...] = ()
    seconds: float = 0.0


class Runner:
    """Runs requests on a loaded model. Inference thread."""

    def __init__(self, model: Model, seconds: Callable[[], float]) -> None:
        """Run on `model`; `seconds` is a clock."""
        self._model = model
        self._seconds = seconds

    @property
    def has_hooks(self) -> bool:
        """Whether the model has `preprocess` or `postprocess`."""
        return self._model.preprocess is not None or self._model.postprocess is not None

    def prepare(self, inputs: Row, findings: Findings) -> Arrays | None:
        """Return what `preprocess` makes of a request; the request itself if there is no such hook.

        None if the hook fails or breaks its contract.
        """
        hook = self._model.preprocess
        if hook is None:
            return inputs
        try:
            prepared = as_arrays(hook(inputs))
        except (Exception, SystemExit) as err:
            message = f"expected a mapping of name to array; got {reason(err)}"
            findings.add(rules.PREPROCESS, "preprocess", message)
            return None
        if common_rows(prepared) == 0:
            shapes = _shapes(prepared) or "nothing"
            message = f"expected arrays of equally many rows, at least one; got {shapes}"
            findings.add(rules.PREPROCESS, "preprocess", message)
            return None
        return prepared

    def run(self, requests: Sequence[Arrays], findings: Findings, rows: int = 1) -> Run:
        """Run one batch of `requests`, which are prepared and had `rows` rows each before."""
        batch = Batch([_part(inputs) for inputs in requests])
        try:
            inputs = batch.collate(self._model.allocate)
            began = self._seconds()
            predicted = self._model.predict(inputs)
        except (Exception, SystemExit) as err:
            message = f"expected outputs for any number of rows; got {reason(err)}"
            findings.add(rules.RAISES, "predict", message, batch.rows)
            return Run()
        seconds = self._seconds() - began
        outputs = {name: np.array(array) for name, array in predicted.items()}
        if self._model.postprocess is None:
            kept = checked_outputs(self._model.spec, outputs, batch.rows, findings)
            return Run(tuple(batch.split(kept)), seconds)
        if not _check_raw_outputs(outputs, batch.rows, findings):
            return Run((), seconds)
        parts = zip(batch.parts, batch.split(outputs), strict=True)
        raw = [(part.rows, answer) for part, answer in parts]
        return Run(self._postprocess(self._model.postprocess, raw, rows, findings), seconds)

    def _postprocess(
        self,
        hook: Hook,
        requests: Sequence[tuple[int, Answer]],
        rows: int,
        findings: Findings,
    ) -> tuple[Answer, ...]:
        """Return the answers that `hook` makes; none if it fails for one of the `requests`.

        Each of the requests stands as its rows in the batch and its outputs. Before `preprocess` it
        had `rows` rows.
        """
        spec, answers = self._model.spec, []
        for batch_rows, outputs in requests:
            try:
                # Copied, since a hook may use the memory of its last answer again.
                answer = {name: np.array(value) for name, value in hook(outputs).items()}
                check_answer(spec, answer, rows, batch_rows)
            except (Exception, SystemExit) as err:
                size = sum(count for count, _ in requests)
                findings.add(rules.POSTPROCESS, "postprocess", _message(err, spec), size)
                return ()
            answers.append(answer)
        return tuple(answers)


def checked_outputs(
    spec: ModelSpec, outputs: Arrays, rows: int, findings: Findings
) -> dict[str, Array]:
    """Return those of `outputs` that are what `spec` promises for `rows` rows.

    A breach of any other output is noted in `findings`.
    """
    kept = {}
    for tensor in spec.outputs:
        try:
            check_outputs(ModelSpec(spec.name, spec.version, (), (tensor,)), outputs, rows)
        except ModelContractError as err:
            rule = _broken_rule(tensor, outputs.get(tensor.name), rows)
            findings.add(
                rule, f"output {tensor.name!r}", _explained(err, outputs.get(tensor.name)), rows
            )
        else:
            kept[tensor.name] = outputs[tensor.name]
    for name in outputs.keys() - {tensor.name for tensor in spec.outputs}:
        expected = ", ".join(repr(tensor.name) for tensor in spec.outputs)
        findings.add(
            rules.EXTRA, f"output {name!r}", f"expected {expected} alone; got {name!r} as well"
        )
    return kept


def reason(error: BaseException) -> str:
    """Return class and message of `error`, and its file and line in the model's own code.

    Without file and line, if the error did not pass through that code.
    """
    place = own_place(error)
    where = f" ({Path(place.file).name}:{place.line})" if place is not None else ""
    return f"{type(error).__name__}: {error}{where}"


def _part(inputs: Arrays) -> Part:
    """Return a part of one whole request, without a deadline, as `Batch` takes it."""
    return Part(inputs, len(next(iter(inputs.values()))), 0, None, 1, 0.0, inf)


def _check_raw_outputs(outputs: Arrays, rows: int, findings: Findings) -> bool:
    """Return whether `predict` of a model with `postprocess` returned `rows` rows; note if not."""
    wrong = {name: array for name, array in outputs.items() if not has_rows(array, rows)}
    if outputs and not wrong:
        return True
    shapes = _shapes(wrong) or "no output"
    message = f"expected {rows} rows out, as many as in; got {shapes}"
    findings.add(rules.ROWS, "predict", message, rows)
    return False


def _shapes(arrays: Arrays) -> str:
    return ", ".join(f"{name} {shape_text(array.shape)}" for name, array in arrays.items())


def _broken_rule(tensor: TensorSpec, array: Array | None, rows: int) -> Rule:
    """Return the rule that `array` breaks, which is not what `tensor` promises for `rows` rows."""
    if array is None:
        return rules.MISSING
    if not has_rows(array, rows):
        return rules.ROWS
    # An output that `admits` takes and `check_outputs` does not is one of BYTES with elements that
    # are no bytes: a wrong dtype, too.
    wrong_dtype = array.dtype != tensor.datatype.numpy or tensor.admits(array)
    return rules.DTYPE if wrong_dtype else rules.SHAPE


def _explained(error: ModelContractError, array: Array | None) -> str:
    """Return the text of `error` without the model, and what was returned if that is no array."""
    message = str(error).partition(": ")[2]
    if array is not None and array.dtype == object and array.ndim == 0:
        return f"{message}: expected an array; got {type(array.item()).__name__}"
    return message


def _message(error: BaseException, spec: ModelSpec) -> str:
    if isinstance(error, ModelContractError):
        return str(error).removeprefix(f"model {spec.name!r}: ")
    return f"expected a mapping of name to array; got {reason(error)}"
