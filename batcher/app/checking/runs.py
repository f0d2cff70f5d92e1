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

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import inf
from pathlib import Path

from batcher.app.checking import rules
from batcher.app.checking.contract import Findings, Rule
from batcher.app.checking.samples import Row
from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.core.padding import Padding, even_rows
from batcher.core.ragged import copied, is_ragged, row_shapes
from batcher.core.spec import Array, ModelSpec, TensorSpec, has_rows, shape_text
from batcher.errors import ModelContractError
from batcher.models.casting import CannotCast, cast
from batcher.models.fitting import fit_outputs, fit_raw_outputs
from batcher.models.hook_contract import answer_of, as_arrays, common_rows, uneven_names
from batcher.models.hook_turns import arrays_of
from batcher.models.own_code import own_place
from batcher.models.protocol import Arrays, Hook, Model, PartialOutputs
from batcher.models.row_errors import RowErrors

Answer = Mapping[str, Array]
"""The outputs that one request gets; outputs that broke the contract are left out."""


@dataclass(frozen=True, slots=True)
class Run:
    """A batch that ran.

    Attributes:
        answers: one for each request, in the order of the requests; empty if the batch failed.
        seconds: the time in `predict` alone.
        failed: why rows failed by themselves, one reason for each such row. The answer of a request
            with such a row is empty.
    """

    answers: tuple[Answer, ...] = ()
    seconds: float = 0.0
    failed: tuple[str, ...] = ()


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
            spec = self._model.spec
            take = partial(as_arrays, uneven=uneven_names(spec))
            prepared = even_rows(arrays_of(hook, inputs, take), spec)
        except (Exception, SystemExit) as err:
            message = _message(err, self._model.spec)
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
        failed = predicted.failed if isinstance(predicted, PartialOutputs) else {}
        answers = self._answers(batch, inputs, _copied(predicted), rows, findings)
        if answers and failed:
            answers = _without_failed(answers, batch.parts, failed)
        reasons = tuple(reason(error) for _, error in sorted(failed.items()))
        return Run(tuple(answers), seconds, reasons)

    def _answers(
        self, batch: Batch, inputs: Arrays, outputs: Arrays, rows: int, findings: Findings
    ) -> Sequence[Answer]:
        """Return the answers of a batch that ran; none if `predict` or a hook broke its contract.

        The batch was run as `inputs`. Before `preprocess` each request had `rows` rows.
        """
        if self._model.postprocess is None:
            kept = checked_outputs(self._model.spec, outputs, batch.rows, findings)
            self._note_lengths(inputs, kept, findings)
            return batch.split(kept)
        if not _check_raw_outputs(outputs, batch.rows, findings):
            return ()
        parts = zip(batch.parts, batch.split(outputs), strict=True)
        raw = [(part.rows, answer) for part, answer in parts]
        return self._postprocess(self._model.postprocess, raw, rows, findings)

    def _note_lengths(self, inputs: Arrays, outputs: Arrays, findings: Findings) -> None:
        """Note if rows of `outputs` cannot be cut to the lengths of padded `inputs`."""
        if not self._model.spec.is_padded:
            return
        padding = Padding(self._model.spec)
        try:
            padding.check_outputs(outputs, padding.lengths_of(inputs))
        except ModelContractError as err:
            findings.add(rules.LENGTHS, "outputs", _explained(err))

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
                raw = fit_raw_outputs(spec.name, outputs, batch_rows)
                take = partial(answer_of, spec=spec, rows=rows, batch_rows=batch_rows)
                answer = arrays_of(hook, raw, take)
            except (Exception, SystemExit) as err:
                size = sum(count for count, _ in requests)
                findings.add(rules.POSTPROCESS, "postprocess", _message(err, spec), size)
                return ()
            # Copied, since a hook may use the memory of its last answer again.
            answers.append({name: copied(value) for name, value in answer.items()})
        return tuple(answers)


def checked_outputs(
    spec: ModelSpec, outputs: Arrays, rows: int, findings: Findings
) -> dict[str, Array]:
    """Return those of `outputs` that are what `spec` promises for `rows` rows, cast to its dtypes.

    A breach of any other output is noted in `findings`, and what else was returned.
    """
    kept: dict[str, Array] = {}
    for tensor in spec.outputs:
        one = ModelSpec(spec.name, spec.version, (), (tensor,))
        try:
            fitted, errors = fit_outputs(one, outputs, rows)
        except ModelContractError as err:
            rule = _broken_rule(tensor, outputs.get(tensor.name), rows)
            findings.add(rule, f"output {tensor.name!r}", _explained(err), rows)
            continue
        if errors:
            text = _explained(errors[min(errors)])
            findings.add(rules.DTYPE, f"output {tensor.name!r}", text, rows)
        else:
            kept |= fitted
            _note_ragged(tensor, fitted[tensor.name], findings)
    left_out = outputs.left_out if isinstance(outputs, PartialOutputs) else ()
    _note_extra(spec, {*outputs, *left_out}, findings)
    return kept


def _note_ragged(tensor: TensorSpec, array: Array, findings: Findings) -> None:
    """Note if the rows of an output are unequal and model.yaml does not say so."""
    if not tensor.is_ragged and is_ragged(array):
        message = f"expected rows of one shape; got {row_shapes(array)}"
        findings.add(rules.RAGGED, f"output {tensor.name!r}", message)


def _note_extra(spec: ModelSpec, names: Set[str], findings: Findings) -> None:
    """Note those of the `names` of what a model returned that are no outputs of `spec`."""
    for name in names - {tensor.name for tensor in spec.outputs}:
        expected = ", ".join(repr(tensor.name) for tensor in spec.outputs)
        findings.add(
            rules.EXTRA, f"output {name!r}", f"expected {expected} alone; got {name!r} as well"
        )


def reason(error: BaseException) -> str:
    """Return class and message of `error`, and its file and line in the model's own code.

    Without file and line, if the error did not pass through that code.
    """
    place = own_place(error)
    where = f" ({Path(place.file).name}:{place.line})" if place is not None else ""
    return f"{type(error).__name__}: {error}{where}"


def _copied(outputs: Arrays) -> Arrays:
    """Return a copy of what `predict` returned, with the names of what was left out."""
    copies = {name: copied(array) for name, array in outputs.items()}
    if not isinstance(outputs, PartialOutputs):
        return copies
    return PartialOutputs(copies, outputs.failed, outputs.left_out)


def _without_failed(
    answers: Sequence[Answer], parts: Sequence[Part], failed: RowErrors
) -> list[Answer]:
    """Return `answers`, with an empty one for each of `parts` that has a row in `failed`."""
    ends = accumulate(part.rows for part in parts)
    return [
        {} if any(row in failed for row in range(end - part.rows, end)) else answer
        for answer, part, end in zip(answers, parts, ends, strict=True)
    ]


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
    try:
        cast(array, tensor)
    except CannotCast:
        return rules.DTYPE
    return rules.SHAPE


def _explained(error: BaseException) -> str:
    """Return the text of `error` without the model."""
    return str(error).partition(": ")[2]


def _message(error: BaseException, spec: ModelSpec) -> str:
    if isinstance(error, ModelContractError):
        return str(error).removeprefix(f"model {spec.name!r}: ")
    return f"expected a mapping of name to array; got {reason(error)}"
