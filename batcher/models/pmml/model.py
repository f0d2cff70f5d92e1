"""Format `pmml`: a file of PMML as a model, whose rows are scored together.

    label, probabilities     of a classifier; `probabilities` in the order of the file's classes
    label                    of a clustering: the name of the cluster
    value                    of any other model

A value that the file does not allow fails its row alone (`invalidValueTreatment`), and so does a
row for which the model has no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from batcher.config.pmml.document import Element, read_document
from batcher.config.pmml.fields import (
    active_fields,
    classes_of,
    model_of,
    target_field,
    tensors_of,
)
from batcher.core.spec import Array
from batcher.errors import InvalidInput, ModelLoadError
from batcher.models.pmml.expressions import fields_in, unsupported, user_functions
from batcher.models.pmml.frame import (
    TYPES,
    Frame,
    cast,
    equals,
    full,
    in_interval,
    is_missing,
    numbers,
)
from batcher.models.pmml.scoring import File, Result
from batcher.models.pmml.segments import outputs_of, scorer
from batcher.models.protocol import Arrays, FreshMemory, PartialOutputs, PlainModel

Check = Callable[[Array], tuple[Array, Array]]
"""Returns a column as its field holds it, and which of its values the field does not allow."""


_KNOWN = {"label", "probabilities", "value"}
"""The outputs that models have, besides those that a file works out."""


class PmmlModel(PlainModel, FreshMemory):
    """A file of PMML."""

    def load(self, device: str) -> None:
        """Read the file. Raises ModelLoadError: it has what is not served. Inference thread."""
        try:
            document = read_document(self._definition.file)
            model = model_of(document)
            _check_target(document, model)
            self._classes = tuple(classes_of(document, model))
            self._fields = _checks(document, model)
            transformations = document.find("TransformationDictionary")
            functions = user_functions(transformations)
            file = File(functions, self._classes, fields_in(transformations, functions))
            self._score, self._derived = scorer(model, file), file.derived
            self._work_out = outputs_of(model.find("Output"), file)
            self._worked_out = {each["name"] for each in tensors_of(document)["outputs"]}
        except RecursionError as err:
            raise ModelLoadError(
                f"{self._definition.file.name}: expected elements that are not too deep inside "
                "each other; got more levels than Python follows"
            ) from err
        except (ValueError, KeyError, IndexError) as err:
            text = f"expected PMML that is complete; got {type(err).__name__}: {err}"
            raise ModelLoadError(f"{self._definition.file.name}: {text}") from err
        self._check_names()

    def _check_names(self) -> None:
        """Raise ModelLoadError if inputs or outputs are not those of the file."""
        known = {*_KNOWN, *self._worked_out}
        wrong = [each.name for each in self.spec.inputs if each.name not in self._fields]
        wrong += [each.name for each in self.spec.outputs if each.name not in known]
        if wrong or len(self.spec.inputs) != len(self._fields):
            raise ModelLoadError(
                f"expected the inputs {', '.join(self._fields)}, and of label, probabilities and "
                f"value the outputs; got {', '.join(wrong) or 'fewer'}: leave both out"
            )

    def operators(self, inputs: Arrays) -> int:
        """Return 0: the number is unknown. Inference thread."""
        return 0

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Score the rows of a batch. Inference thread."""
        rows = len(next(iter(inputs.values())))
        columns: dict[str, Array] = {}
        failed: dict[int, BaseException] = {}
        for name, check in self._fields.items():
            column, wrong = check(_column(inputs[name]))
            columns[name] = column
            for row in np.flatnonzero(wrong):
                failed[int(row)] = InvalidInput(
                    f"input {name!r}: expected a value that the model's file allows; got "
                    f"{_brief(inputs[name][row])}"
                )
        with np.errstate(divide="ignore", invalid="ignore"):
            frame = Frame(columns, rows, self._derived)
            result = self._score(frame)
            worked = self._work_out(frame, result) if self._worked_out - _KNOWN else {}
        return self._outputs(result, rows, failed, worked)

    def _outputs(
        self,
        result: Result,
        rows: int,
        failed: dict[int, BaseException],
        worked: dict[str, Array],
    ) -> dict[str, Array]:
        lack = is_missing(result.value)
        for row in np.flatnonzero(lack):
            failed.setdefault(
                int(row), InvalidInput("expected values that the model has an answer for; got none")
            )
        label = full(rows, b"")
        if result.value.dtype.hasobject:
            label[:] = [b"" if each is None else each.encode() for each in result.value]
        scores = result.scores if result.scores is not None else np.zeros((rows, 0))
        found: dict[str, Array] = worked | {
            "label": label,
            "probabilities": np.ascontiguousarray(scores),
            "value": result.value,
        }
        outputs = {each.name: _widened(found[each.name]) for each in self.spec.outputs}
        return PartialOutputs(outputs, failed) if failed else outputs


def _widened(column: Array) -> Array:
    return column if column.dtype.hasobject else numbers(column)


def _check_target(document: Element, model: Element) -> None:
    """Raise ModelLoadError where classes have an order that a regression goes by."""
    target = target_field(document, model)
    if target is not None and target.get("optype") == "ordinal":
        for each in model.walk():
            if each.tag == "RegressionModel" and each.get("functionName") == "classification":
                raise unsupported(each, "an ordinal target")


def _column(values: Array) -> Array:
    """Return an input as a column of a frame. Raises InvalidInput: it is not UTF-8."""
    if not values.dtype.hasobject:
        return values.astype(np.float64)
    column = np.empty(len(values), object)
    try:
        column[:] = [value.decode() or None for value in values]
    except UnicodeDecodeError as err:
        raise InvalidInput(f"expected text in UTF-8; got {err}") from err
    return column


def _brief(value: Any) -> str:
    return repr(value.decode("utf-8", "replace")[:40]) if isinstance(value, bytes) else str(value)


def _checks(document: Element, model: Element) -> dict[str, Check]:
    """Return what is done with each input before it is a field."""
    schema = {each.get("name"): each for each in model.need("MiningSchema").all("MiningField")}
    return {
        field.get("name"): _check(field, schema[field.get("name")])
        for field in active_fields(document, model)
    }


def _check(field: Element, mining: Element) -> Check:
    """Return the check of one input: its type, its values, and what happens to others."""
    data_type, allows = field.get("dataType"), _allows(field)
    listed = [each for each in field.all("Value") if each.get("property") == "missing"]
    treatment = mining.get("invalidValueTreatment", "returnInvalid")
    if treatment not in ("returnInvalid", "asIs", "asMissing"):
        raise ValueError(f"{mining}: expected a treatment that is served; got {treatment}")
    if data_type not in TYPES:
        raise unsupported(field, f"dataType {data_type}")
    is_needed = mining.get("missingValueTreatment") == "returnInvalid"

    def check(column: Array) -> tuple[Array, Array]:
        was_missing = is_missing(column)
        column = cast(column, data_type)
        # A boolean that is neither true nor false is missing now.
        wrong = is_missing(column) & ~was_missing
        for each in listed:
            column[equals(column, each.get("value"))] = None if column.dtype.hasobject else np.nan
        wrong |= ~is_missing(column) & ~allows(column)
        if treatment == "asMissing":
            column[wrong] = None if column.dtype.hasobject else np.nan
        refused = wrong if treatment == "returnInvalid" else np.zeros(len(column), bool)
        return column, refused | is_missing(column) if is_needed else refused

    return check


def _allows(field: Element) -> Callable[[Array], Array]:
    """Return what tells which values a field allows: those it lists, or those of intervals."""
    values = [each for each in field.all("Value") if each.get("property", "valid") == "valid"]
    valid = {each.get("value") for each in values}
    intervals = field.all("Interval")
    if valid:
        return lambda column: np.any([equals(column, text) for text in valid], axis=0)
    if intervals:
        return lambda column: np.any([in_interval(column, each) for each in intervals], axis=0)
    return lambda column: np.ones(len(column), bool)


MODEL = PmmlModel
