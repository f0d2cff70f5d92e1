"""Whether the steps of a pipeline go together: names, dtypes, shapes and rows of all values.

    Plan (the file alone)  +  specifications of the models  -->  Fitted, or a ConfigError with line

This runs when a pipeline is loaded, whenever one of its models has changed, and in `batcher check`.
Whatever can be known before a request comes is an error here, not there. What is left for requests
are free axes: a value of shape [-1] may or may not fit an input of shape [8].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from batcher.config.default_values import default_row
from batcher.config.pipelines.plan import Fixed, Plan, Step
from batcher.config.yaml_text import Key
from batcher.core.error_text import brief
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ConfigError
from batcher.serving.pipelines.built_in.built_in import BuiltIn
from batcher.serving.pipelines.built_in.table import built_in
from batcher.serving.pipelines.conditions import Test, test_of

SpecOf = Callable[[Step], ModelSpec]
"""Returns the specification of a step's model. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a value.

    Attributes:
        tensor: dtype and shape of its rows.
        rows: name of the step whose rows it has; empty for those of the request.
    """

    tensor: TensorSpec
    rows: str = ""


@dataclass(frozen=True, slots=True)
class FittedStep:
    """A step that goes together with the others.

    Attributes:
        step: as it was planned.
        spec: what the step takes and gives; of a built-in step what it gives alone.
        made: the built-in step; None for another kind.
        test: which rows the step gets; None for all.
        fixed: from the name of an output to the row that stands in for rows which the step does not
            get, where the file holds that row.
        outputs: outputs that something reads.
        rows: name of the step whose rows the inputs have; empty for those of the request.
        is_exact: whether inputs fit the model whatever a request holds.
        is_even: whether no input is ragged.
    """

    step: Step
    spec: ModelSpec
    made: BuiltIn | None
    test: Test | None
    fixed: Mapping[str, Array]
    outputs: tuple[TensorSpec, ...]
    rows: str
    is_exact: bool
    is_even: bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """A pipeline whose steps go together.

    Attributes:
        plan: as the file has it.
        steps: in the order of the plan.
    """

    plan: Plan
    steps: tuple[FittedStep, ...]


def fit(spec: ModelSpec, plan: Plan, spec_of: SpecOf) -> Fitted:
    """Return the steps of `plan`, of the pipeline `spec`, with models that `spec_of` gives.

    Raises ConfigError: they do not go together. Any thread.
    """
    fitting = _Fitting(spec, plan, spec_of)
    steps = tuple([fitting.step(step) for step in plan.steps])
    fitting.check_outputs()
    return Fitted(plan, steps)


def unknown_model(plan: Plan, step: Step, names: Iterable[str]) -> ConfigError:
    """Return the error that the model of `step` is not among those with `names`."""
    close = get_close_matches(step.model, [name for name in names if name != step.model], 1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    version = f" version {step.version!r}" if step.version else ""
    text = f"expected a model that is here; got {step.model!r}{version}{meant}"
    return plan.error((*step.key, "model"), text)


def nested_pipeline(plan: Plan, step: Step) -> ConfigError:
    """Return the error that the model of `step` is a pipeline itself."""
    return plan.error(
        (*step.key, "model"), f"expected a model; {step.model!r} is a pipeline: name its models"
    )


class _Fitting:
    def __init__(self, spec: ModelSpec, plan: Plan, spec_of: SpecOf) -> None:
        self._spec = spec
        self._plan = plan
        self._spec_of = spec_of
        self._values = {tensor.name: Value(tensor) for tensor in spec.inputs}

    def step(self, step: Step) -> FittedStep:
        made = built_in(self._plan, step) if step.use else None
        rows = self._rows(step)
        spec = self._step_spec(step, made)
        exact = self._check_inputs(step, spec) if step.model else False
        outputs = self._used(step, spec)
        test = self._test(step)
        fixed = self._check_otherwise(step, outputs) if test is not None else {}
        inputs = [self._values[reference].tensor for reference in step.inputs.values()]
        after = self._rows_after(step, made, rows)
        is_even = not any(tensor.is_ragged for tensor in inputs)
        for tensor in outputs:
            # Rows of unequal lengths give rows of unequal lengths.
            ragged = tensor.is_ragged or (not is_even and bool(tensor.free_axes))
            ragged = ragged or self._otherwise_is_ragged(step, tensor.name)
            value = TensorSpec(tensor.name, tensor.datatype, tensor.shape, is_ragged=ragged)
            self._values[f"{step.name}.{tensor.name}"] = Value(value, after)
        return FittedStep(step, spec, made, test, fixed, outputs, rows, exact, is_even)

    def check_outputs(self) -> None:
        for index, (name, reference) in enumerate(self._plan.outputs.items()):
            want = next(tensor for tensor in self._spec.outputs if tensor.name == name)
            value, key = self._values[reference], ("outputs", index)
            if value.rows:
                raise self._plan.error(
                    (*key, "from"),
                    f"expected a value with the rows of the request; got {reference!r}, which has "
                    f"those of step {value.rows!r}: fold it first, with a step `use: fold`",
                )
            self._check_fits(key, reference, want)
            if value.tensor.is_ragged and not want.is_ragged:
                raise self._plan.error(key, f"expected `ragged: true`, as {reference!r} is")

    def _rows(self, step: Step) -> str:
        """Return whose rows the inputs, the condition and the other values have: all the same."""
        found: dict[str, str] = {}
        for key, reference in step.references():
            value = self._values.get(reference)
            if value is None:
                owner, _, output = reference.partition(".")
                raise self._plan.error(
                    (*step.key, *key), self._unknown_output(owner, output, reference)
                )
            found.setdefault(value.rows, reference)
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise self._plan.error(
                (*step.key, "inputs"),
                f"expected values with the same rows; got {first!r} with those of "
                f"{_owner(one)}, and {second!r} with those of {_owner(other)}",
            )
        return next(iter(found))

    def _unknown_output(self, owner: str, output: str, reference: str) -> str:
        begin = f"{owner}."
        known = [name[len(begin) :] for name in self._values if name.startswith(begin)]
        close = get_close_matches(output, known, 1, 0.5)
        meant = f"; did you mean {begin}{close[0]}?" if close else ""
        return (
            f"expected an output of step {owner!r} ({', '.join(known) or 'none is read'}); got "
            f"{brief(reference)}{meant}"
        )

    def _step_spec(self, step: Step, made: BuiltIn | None) -> ModelSpec:
        if step.model:
            return self._spec_of(step)
        name, version = self._spec.name, self._spec.version
        if made is None:
            return ModelSpec(f"{name}, step {step.name}", version, (), step.outputs)
        self._check_input_names(step, made.inputs, made.inputs)
        given = {name: self._values[reference].tensor for name, reference in step.inputs.items()}
        try:
            return ModelSpec(name, version, (), made.outputs(given))
        except ValueError as err:
            raise self._plan.error((*step.key, "inputs"), str(err)) from None

    def _check_inputs(self, step: Step, spec: ModelSpec) -> bool:
        """Check what a model gets; return whether it fits whatever a request holds."""
        wants = {tensor.name: tensor for tensor in spec.inputs}
        required = [tensor.name for tensor in spec.required]
        self._check_input_names(step, tuple(wants), tuple(required))
        fits = [
            self._check_fits((*step.key, "inputs", name), reference, wants[name])
            for name, reference in step.inputs.items()
        ]
        return all(fits) and len(fits) == len(wants)

    def _check_input_names(
        self, step: Step, known: tuple[str, ...], required: tuple[str, ...]
    ) -> None:
        what = f"model {step.model!r}" if step.model else f"`use: {step.use}`"
        for name in step.inputs:
            if name not in known:
                close = get_close_matches(name, known, 1, 0.5)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                raise self._plan.error(
                    (*step.key, "inputs", name),
                    f"expected an input of {what} ({', '.join(known)}); got {brief(name)}{meant}",
                )
        if missing := [name for name in required if name not in step.inputs]:
            raise self._plan.error(
                (*step.key, "inputs"), f"expected {', '.join(missing)} too, as {what} needs"
            )

    def _check_fits(self, key: Key, reference: str, want: TensorSpec) -> bool:
        """Check a value for the place `want`; return whether it fits whatever a request holds."""
        value = self._values.get(reference)
        if value is None:
            owner, _, output = reference.partition(".")
            raise self._plan.error(key, self._unknown_output(owner, output, reference))
        have = value.tensor
        if have.datatype is not want.datatype or not _may_fit(have.shape, want.shape):
            ours, theirs = want.describe(), have.describe()
            raise self._plan.error(key, f"expected {ours}; got {reference!r} of {theirs}")
        sizes = zip(want.shape, have.shape, strict=True)
        if have.is_ragged and any(size < 0 <= wanted for wanted, size in sizes):
            raise self._plan.error(
                key,
                f"expected {want.describe()}; got {reference!r} of {have.describe()}, which is "
                "ragged: its rows differ in the sizes of -1, where all rows need one size here",
            )
        return not have.is_ragged and all(
            wanted in (-1, size) for wanted, size in zip(want.shape, have.shape, strict=True)
        )

    def _used(self, step: Step, spec: ModelSpec) -> tuple[TensorSpec, ...]:
        """Return the outputs of a step that something reads."""
        known = {tensor.name: tensor for tensor in spec.outputs}
        used = self._plan.used_outputs(step)
        for name in used:
            if name not in known:
                close = get_close_matches(name, known, 1, 0.5)
                meant = f"; did you mean {step.name}.{close[0]}?" if close else ""
                raise self._plan.error(
                    self._reader(f"{step.name}.{name}"),
                    f"expected an output of step {step.name!r} ({', '.join(known)}); got "
                    f"{brief(name)}{meant}",
                )
        return tuple(known[name] for name in used)

    def _reader(self, reference: str) -> Key:
        """Return where in the file `reference` stands first."""
        for step in self._plan.steps:
            for key, name in step.references():
                if name == reference:
                    return (*step.key, *key)
        names = list(self._plan.outputs.values())
        return ("outputs", names.index(reference), "from")

    def _test(self, step: Step) -> Test | None:
        if step.condition is None:
            return None
        types = {name: self._values[name].tensor for name in step.condition.references}
        try:
            return test_of(step.condition, types)
        except ValueError as err:
            raise self._plan.error((*step.key, "when"), str(err)) from None

    def _check_otherwise(self, step: Step, outputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
        """Return the fixed rows for rows that a step does not get."""
        fixed = {}
        known = {tensor.name: tensor for tensor in outputs}
        for name, value in step.otherwise.items():
            key = (*step.key, "else", name)
            if name not in known:
                got = brief(name)
                raise self._plan.error(
                    key, f"expected an output that is read ({', '.join(known)}); got {got}"
                )
            if isinstance(value, Fixed):
                fixed[name] = self._fixed_row(key, value.value, known[name])
            else:
                self._check_fits(key, value, known[name])
        if missing := [name for name in known if name not in step.otherwise]:
            raise self._plan.error(
                (*step.key, "when"),
                f"expected `else` with {', '.join(missing)}: what rows have that the step does not "
                "get",
            )
        return fixed

    def _fixed_row(self, key: Key, value: Any, tensor: TensorSpec) -> Array:
        try:
            return default_row(value, tensor.datatype, tensor.shape)
        except ValueError as err:
            raise self._plan.error(key, f"expected {err}; got {brief(value)}") from None

    def _otherwise_is_ragged(self, step: Step, name: str) -> bool:
        value = step.otherwise.get(name)
        return isinstance(value, str) and self._values[value].tensor.is_ragged

    def _rows_after(self, step: Step, made: BuiltIn | None, rows: str) -> str:
        """Return whose rows the outputs of a step have."""
        if made is not None and (made.spreads or made.folds) and step.condition is not None:
            raise self._plan.error((*step.key, "when"), f"expected no `when` with {step.use}")
        if made is not None and made.spreads:
            if rows:
                text = f"expected rows of the request; got those of step {rows!r}"
                raise self._plan.error((*step.key, "inputs"), text)
            return step.name
        if made is not None and made.folds:
            if not rows:
                text = "expected rows of a step such as crop_boxes; got those of the request"
                raise self._plan.error((*step.key, "inputs"), text)
            return ""
        return rows


def _owner(rows: str) -> str:
    return f"step {rows!r}" if rows else "the request"


def _may_fit(have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(have) == len(want) and all(
        -1 in (one, other) or one == other for one, other in zip(have, want, strict=True)
    )
