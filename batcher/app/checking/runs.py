"""One batch on a model, as the server runs it, with every breach noted rather than the first one raised.

Inputs are put together by the same `Batch` into the same buffers, hooks are given one request each.
Outputs are copied before anything else happens: a model that uses their memory again must not
change what is compared later.
"""

from __future__ import annotations

import traceback
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
from batcher.core.spec import Array, ModelSpec, TensorSpec, check_outputs, shape_text
from batcher.errors import ModelContractError
from batcher.models.protocol import Arrays, Model

_SERVER = Path(__file__).parents[2]

Answer = Mapping[str, Array]
"""What one request is answered; outputs that broke the contract are left out."""


@dataclass(frozen=True, slots=True)
class Run:
    """A batch that ran.

    Attributes:
        answers: of each request, in their order; empty if the batch failed.
        seconds: of `predict` alone.
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
        """Whether the model sees to requests before or after their batch."""
        return self._model.preprocess is not None or self._model.postprocess is not None

    def prepare(self, inputs: Row, findings: Findings) -> Arrays | None:
        """Return what `preprocess` makes of a request, the request itself if there is none.

        None if it fails.
        """
        hook = self._model.preprocess
        if hook is None:
            return inputs
        try:
            prepared = {name: np.asarray(value) for name, value in hook(inputs).items()}
        except (Exception, SystemExit) as err:
            findings.add(
                rules.PREPROCESS,
                "preprocess",
                f"expected a mapping of name to array; got {reason(err)}",
            )
            return None
        rows = {len(array) if array.ndim else 0 for array in prepared.values()}
        if len(rows) != 1 or 0 in rows:
            shapes = (
                ", ".join(f"{name} {shape_text(array.shape)}" for name, array in prepared.items())
                or "nothing"
            )
            findings.add(
                rules.PREPROCESS,
                "preprocess",
                f"expected arrays of equally many rows, at least one; got {shapes}",
            )
            return None
        return prepared

    def run(self, requests: Sequence[Arrays], findings: Findings) -> Run:
        """Run one batch of prepared `requests`."""
        batch = Batch([_part(inputs) for inputs in requests])
        try:
            inputs = batch.collate(self._model.allocate)
            began = self._seconds()
            given = self._model.predict(inputs)
        except (Exception, SystemExit) as err:
            findings.add(
                rules.RAISES,
                "predict",
                f"expected outputs for any number of rows; got {reason(err)}",
                batch.rows,
            )
            return Run()
        seconds = self._seconds() - began
        outputs = {name: np.array(array) for name, array in given.items()}
        if self._model.postprocess is None:
            kept = checked_outputs(self._model.spec, outputs, batch.rows, findings)
            return Run(tuple(batch.split(kept)), seconds)
        return Run(self._postprocessed(batch, outputs, findings), seconds)

    def _postprocessed(
        self, batch: Batch, outputs: Arrays, findings: Findings
    ) -> tuple[Answer, ...]:
        hook, spec = self._model.postprocess, self._model.spec
        assert hook is not None
        wrong = [
            f"{name} {shape_text(array.shape)}"
            for name, array in outputs.items()
            if array.shape[:1] != (batch.rows,)
        ]
        if wrong or not outputs:
            message = (
                f"expected {batch.rows} rows out, as many as in; got "
                f"{', '.join(wrong) or 'no output'}"
            )
            findings.add(rules.ROWS, "predict", message, batch.rows)
            return ()
        answers = []
        for part, rows in zip(batch.parts, batch.split(outputs), strict=True):
            try:
                answer = {name: np.array(value) for name, value in hook(rows).items()}
                check_outputs(spec, answer, part.rows)
            except (Exception, SystemExit) as err:
                findings.add(rules.POSTPROCESS, "postprocess", _message(err, spec), batch.rows)
                return ()
            answers.append(answer)
        return tuple(answers)


def checked_outputs(
    spec: ModelSpec, outputs: Arrays, rows: int, findings: Findings
) -> dict[str, Array]:
    """Return those of `outputs` that are what `spec` promises for `rows` rows.

    Note what is wrong with the others.
    """
    kept = {}
    for tensor in spec.outputs:
        try:
            check_outputs(ModelSpec(spec.name, spec.version, (), (tensor,)), outputs, rows)
        except ModelContractError as err:
            rule = _broken(tensor, outputs.get(tensor.name), rows)
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
    """Return class and message of `error` and, where it went through the model's own code, file and line."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_own(Path(frame.filename))
    ]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _is_own(file: Path) -> bool:
    return file.is_file() and "site-packages" not in file.parts and not file.is_relative_to(_SERVER)


def _part(inputs: Arrays) -> Part:
    return Part(inputs, len(next(iter(inputs.values()))), 0, None, 1, 0.0, inf)


def _broken(tensor: TensorSpec, array: Array | None, rows: int) -> Rule:
    if array is None:
        return rules.MISSING
    if array.shape[:1] != (rows,):
        return rules.ROWS
    is_dtype = array.dtype != tensor.datatype.numpy or tensor.admits(
        array
    )  # of BYTES each element has to be right, too
    return rules.DTYPE if is_dtype else rules.SHAPE


def _explained(error: ModelContractError, array: Array | None) -> str:
    message = str(error).partition(": ")[2]
    if array is not None and array.dtype == object and array.ndim == 0:
        return f"{message}: expected an array; got {type(array.item()).__name__}"
    return message


def _message(error: BaseException, spec: ModelSpec) -> str:
    if isinstance(error, ModelContractError):
        return str(error).removeprefix(f"model {spec.name!r}: ")
    return f"expected a mapping of name to array; got {reason(error)}"
