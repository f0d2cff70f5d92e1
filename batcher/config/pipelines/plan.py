"""The steps of a pipeline in an order in which they can run, as far as its file alone says.

Here the names are checked: that each value comes from somewhere, that no step waits for itself,
that each step is of use to somebody. Whether dtypes and shapes go together shows when the models
are known (`serving/pipelines/fitting.py`). Both kinds of errors name the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any

from batcher.config.pipelines.expression import Condition, parse_condition
from batcher.config.pipelines.step_file import StepFile
from batcher.config.reading import Source
from batcher.config.yaml_text import Key, dotted
from batcher.core.spec import TensorSpec
from batcher.errors import ConfigError

MAX_STEPS = 100
"""Steps of a pipeline. Each costs a request some 30 µs of the loop, so 100 cost 3 ms."""

_MOST_NAMES = 8
"""Names that an error lists: more do not fit into a line."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pipeline.

    Attributes:
        name: what the step is called.
        key: where the step stands in the file.
        model: name of the model that answers; empty for another kind of step.
        version: number or label of that model's version; empty for the newest.
        use: name of the built-in step; empty for another kind.
        options: settings of the built-in step.
        entry: `module:Class` of the author's code; empty for another kind.
        inputs: from the name of an input of the step to a reference.
        outputs: what the author's code returns.
        condition: which rows the step gets; None for all.
        otherwise: for the other rows, from the name of an output to a reference or a `Fixed`.
    """

    name: str
    key: Key
    model: str
    version: str
    use: str
    options: Mapping[str, Any]
    entry: str
    inputs: Mapping[str, str]
    outputs: tuple[TensorSpec, ...]
    condition: Condition | None
    otherwise: Mapping[str, str | Fixed]

    def references(self) -> Iterator[tuple[Key, str]]:
        """Yield each reference of the step, and below `key` its place in the file."""
        for name, reference in self.inputs.items():
            yield ("inputs", name), reference
        for reference in self.condition.references if self.condition is not None else ():
            yield ("when",), reference
        for name, value in self.otherwise.items():
            if isinstance(value, str):
                yield ("else", name), value


@dataclass(frozen=True, slots=True)
class Fixed:
    """A value that stands in the file itself."""

    value: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a pipeline.

    Attributes:
        steps: in an order in which each comes after those that it needs.
        outputs: from the name of an output of the pipeline to a reference.
        origins: where each value stands in the file.
    """

    steps: tuple[Step, ...]
    outputs: Mapping[str, str]
    origins: Mapping[Key, str] = field(compare=False, repr=False)

    def error(self, key: Key, text: str) -> ConfigError:
        """Return the error that says `text` of the value at `key` in the file."""
        return ConfigError(f"{Source({}, dict(self.origins)).origin(key)}: {dotted(key)}: {text}")

    def used_outputs(self, step: Step) -> list[str]:
        """Return the outputs of `step` that something reads."""
        read = [reference for each in self.steps for _, reference in each.references()]
        begin = f"{step.name}."
        names = [*read, *self.outputs.values()]
        return sorted({name.removeprefix(begin) for name in names if name.startswith(begin)})


def plan_of(
    steps: Sequence[StepFile], inputs: Sequence[str], outputs: Mapping[str, str], source: Source
) -> Plan:
    """Return the plan of `steps`, which make `outputs` of the request's `inputs`.

    `outputs` are references by the names of the outputs, in the order of the file. Raises
    ConfigError.
    """
    found = [_step(index, each) for index, each in enumerate(steps)]
    plan = Plan(tuple(found), dict(outputs), source.origins)
    _check_names(plan, inputs)
    _check_references(plan, inputs)
    plan = Plan(tuple(_ordered(plan)), plan.outputs, plan.origins)
    for step in plan.steps:
        if not plan.used_outputs(step):
            raise plan.error(
                step.key, f"expected an output or a step that reads {step.name!r}; there is none"
            )
    return plan


def _step(index: int, file: StepFile) -> Step:
    return Step(
        file.name,
        ("steps", index),
        file.model or "",
        file.version or "",
        file.use or "",
        file.options,
        file.entry or "",
        file.inputs,
        tuple(tensor.spec() for tensor in file.outputs),
        parse_condition(file.when) if file.when is not None else None,
        {name: _otherwise(value) for name, value in file.otherwise.items()},
    )


def _otherwise(value: Any) -> str | Fixed:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() == {"value"}:
        return Fixed(value["value"])
    return Fixed(value)


def _check_names(plan: Plan, inputs: Sequence[str]) -> None:
    if len(plan.steps) > MAX_STEPS:
        got = len(plan.steps)
        raise plan.error(("steps",), f"expected at most {MAX_STEPS} steps; got {got}")
    seen: set[str] = set()
    for step in plan.steps:
        clash = [name for name in inputs if name == step.name or name.startswith(f"{step.name}.")]
        if step.name in seen or clash:
            other = f"the input {clash[0]!r}" if clash else "another step"
            text = f"expected a name of its own; got {step.name!r}, as {other} has"
            raise plan.error((*step.key, "name"), text)
        seen.add(step.name)


def _check_references(plan: Plan, inputs: Sequence[str]) -> None:
    steps = {step.name for step in plan.steps}
    places = [
        *((step.key + key, name) for step in plan.steps for key, name in step.references()),
        *((("outputs", i, "from"), name) for i, name in enumerate(plan.outputs.values())),
    ]
    for key, reference in places:
        step, dot, _ = reference.partition(".")
        if reference in inputs or (dot and step in steps):
            continue
        known = [*inputs, *sorted(steps)]
        close = get_close_matches(step, known, 1, 0.6)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        if reference in steps:
            meant = f"; name an output of it, as `{reference}.OUTPUT`"
        raise plan.error(
            key,
            f"expected an input ({_listed(inputs)}) or `step.output` of a step "
            f"({_listed(sorted(steps))}); got {reference!r:.100}{meant}",
        )


def _listed(names: Sequence[str]) -> str:
    more = "" if len(names) <= _MOST_NAMES else ", …"
    return ", ".join(names[:_MOST_NAMES]) + more


def _ordered(plan: Plan) -> list[Step]:
    """Return the steps so that each comes after those that it needs. Raises ConfigError."""
    by_name = {step.name: step for step in plan.steps}
    needs = {
        step.name: {
            name.partition(".")[0]
            for _, name in step.references()
            if name.partition(".")[0] in by_name
        }
        for step in plan.steps
    }
    try:
        return [by_name[name] for name in TopologicalSorter(needs).static_order()]
    except CycleError as err:
        circle = list(reversed(err.args[1]))
        raise plan.error(
            by_name[circle[0]].key,
            f"expected steps that do not wait for themselves; got {' which needs '.join(circle)}",
        ) from None
