"""Which values of a pipeline may stay on a device: what one model gives and another one takes.

    steps                                              the value
    first: model A;  second: model B, {x: first.y}     stays, if A and B share a GPU
    first: model A;  second: `use: softmax`            goes by the host, as all code of steps does

All values come to the host as well, so conditions, answers and steps without a model need nothing.
A model is asked to keep an output while a pipeline has such a step, and no longer. Whether two
models share a GPU is looked at whenever a model has changed: it may be loaded on another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from batcher.config.pipelines.plan import Plan, Step
from batcher.models.kept_rows import Wish, joined_wish
from batcher.workers.instances import Instances

InstancesOf = Callable[[Step], list[Instances]]
"""Returns the instances of each version that may answer a step."""


class Passage(NamedTuple):
    """A value on its way from one model to another.

    Attributes:
        maker: the step whose model gives it.
        output: its name there.
        taker: the step whose model takes it.
        input: its name there.
    """

    maker: Step
    output: str
    taker: Step
    input: str


def passages_of(plan: Plan) -> list[Passage]:
    """Return all values that one model of `plan` gives and another one takes. Any thread."""
    steps = {step.name: step for step in plan.steps}
    return [
        Passage(maker, output, taker, name)
        for taker in plan.steps
        if taker.model
        for name, reference in taker.inputs.items()
        for maker, output in _makers(reference, steps)
    ]


def _makers(reference: str, steps: dict[str, Step]) -> Iterator[tuple[Step, str]]:
    """Yield the steps with a model that may have made the rows of `reference`, and its name there.

    A step with a condition has rows of its own, and rows of its `else`.
    """
    name, _, output = reference.partition(".")
    step = steps.get(name)
    if step is None or not output:  # an input of the request
        return
    if step.model:
        yield step, output
    other = step.otherwise.get(output)
    if isinstance(other, str):
        yield from _makers(other, steps)


class OnDevice:
    """Asks the models of one pipeline to keep and to take what may stay on a device.

    Reactor thread.

    Attributes:
        passages: values that may stay on a device now.
    """

    def __init__(self, plan: Plan, instances_of: InstancesOf) -> None:
        """Ask nothing yet."""
        self.passages: list[Passage] = []
        self._all = passages_of(plan)
        self._instances_of = instances_of
        self._asked: set[Instances] = set()

    @property
    def names(self) -> list[str]:
        """These values with the steps that take them, as `first.y to second`."""
        return [f"{each.maker.name}.{each.output} to {each.taker.name}" for each in self.passages]

    def look(self) -> None:
        """Ask what is of use with the models as they are now, and nothing else."""
        wishes: dict[Instances, list[Wish]] = defaultdict(list)
        self.passages = [passage for passage in self._all if self._ask(passage, wishes)]
        for instances in self._asked - wishes.keys():
            instances.wish(self, None)
        for instances, each in wishes.items():
            instances.wish(self, joined_wish(each))
        self._asked = set(wishes)

    def end(self) -> None:
        """Ask nothing any more."""
        self._all = []
        self.look()

    def _ask(self, passage: Passage, wishes: dict[Instances, list[Wish]]) -> bool:
        """Put what `passage` needs into `wishes`; return whether it may stay on a device."""
        makers, takers = map(self._instances_of, (passage.maker, passage.taker))
        shared = _devices(makers) & _devices(takers)
        if not shared:
            return False
        keeps, takes = frozenset([passage.output]), frozenset([passage.input])
        for instances in makers:
            wishes[instances].append(Wish(keeps=keeps, devices=shared))
        for instances in takers:
            wishes[instances].append(Wish(takes=takes, devices=shared))
        return True


def _devices(found: list[Instances]) -> frozenset[str]:
    return frozenset([device for instances in found for device in instances.devices])
