"""The graph of a pipeline as requests run it: nodes that know what they need and what follows.

Each step is a node. A step with `when` is two, so that whatever stands in for the rows that the
step does not get may be made at the same time:

    large (when …, else small.scores)      node `large`   gets the chosen rows
                                           node `large:`  waits for `large` and for `small`, merges

A graph is made when a pipeline is loaded or one of its models has changed. Requests on their way
keep the graph that they began with. Whatever does not depend on the request is worked out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.serving.pipelines.built_in.built_in import COUNTS, BuiltIn
from batcher.serving.pipelines.conditions import Test
from batcher.serving.pipelines.counts import PipelineCounts, StepCounts
from batcher.serving.pipelines.fitting import Fitted, FittedStep
from batcher.serving.pipelines.on_device import Passage
from batcher.serving.pipelines.rows import no_rows
from batcher.serving.servable import Servable

Code = Callable[[Mapping[str, Array]], Any]
"""What the class of a step has made: called with the inputs of a request."""

CHOSEN: Final = "\0"
"""Ends the name of a value that has the chosen rows alone."""


@final
class Join:
    """How an output of a step with a condition gets the rows that the step did not get.

    Attributes:
        tensor: the output.
        chosen: name of the value with the chosen rows alone.
        name: name of the value with all rows.
        otherwise: name of the value that the other rows have; empty where that is `fixed`.
        fixed: the row that stands for each of the other rows.
    """

    __slots__ = ("chosen", "fixed", "name", "otherwise", "tensor")

    def __init__(self, fitted: FittedStep, tensor: TensorSpec) -> None:
        """Join the output `tensor` of the step `fitted`."""
        other = fitted.step.otherwise[tensor.name]
        self.tensor = tensor
        self.name = f"{fitted.step.name}.{tensor.name}"
        self.chosen = f"{self.name}{CHOSEN}"
        self.otherwise = other if isinstance(other, str) else ""
        self.fixed: Array | None = fitted.fixed.get(tensor.name)


@final
class Node:
    """Something to do for each request, once what it needs is there. Reactor thread.

    Attributes:
        index: place of the node in its graph.
        call: place of the node that calls the step: the node itself, or for one that merges the one
            whose rows it merges.
        name: name of the step.
        merges: whether it puts the rows of a step and those of its `else` together.
        needs: how many other nodes come before it.
        followers: nodes that need it.
        inputs: names of inputs of the step and references, what the step gets.
        first: the first of these references.
        outputs: names of outputs of the step and references, what is kept of the step's results.
        looks_at: references to all that the node works on.
        test: which rows the step gets; None for all.
        joins: how each output is merged.
        joins_fixed: whether rows that stand in the file are merged.
        empty: what the step gives where it gets no row.
        spec: what the step takes and gives.
        given: outputs that something reads.
        is_exact: whether inputs fit the model whatever a request holds.
        is_even: whether no input is ragged.
        is_plain: whether the model takes the inputs as they are: exact, even, and no texts.
        find: finds the model that answers now; None for a step without a model.
        code: the author's code; None for a step without a class.
        built_in: the built-in step; None for another kind.
        counts: where rows are counted.
        spread: name of the value that says how many rows each row has become; empty for a step that
            neither spreads nor folds.
        keeps: references to outputs that a later model may take from a device.
        takes: inputs that the model may take from a device.
    """

    needs = 0
    keeps: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    find: Callable[[], Servable] | None = None
    code: Code | None = None

    def __init__(self, index: int, fitted: FittedStep, call: int, counts: StepCounts) -> None:
        """Begin without neighbours; a node that merges the rows of another has that one's `call`.

        Any thread.
        """
        step = fitted.step
        self.index, self.call, self.merges = index, call, call != index
        self.name = step.name
        self.followers: list[Node] = []
        self.inputs: tuple[tuple[str, str], ...] = tuple(step.inputs.items())
        self.first = self.inputs[0][1]
        self.outputs = _kept(fitted)
        self.looks_at = _looked_at(self, fitted)
        self.test: Test | None = fitted.test
        self.joins = [Join(fitted, tensor) for tensor in fitted.outputs] if self.merges else []
        self.joins_fixed = bool([join for join in self.joins if not join.otherwise])
        self.empty: dict[str, Array] = {t.name: no_rows(t) for t in fitted.outputs}
        self.spec: ModelSpec = fitted.spec
        self.given: tuple[TensorSpec, ...] = fitted.outputs
        self.is_exact, self.is_even = fitted.is_exact, fitted.is_even
        self.is_plain = fitted.is_exact and fitted.is_even and not _takes_texts(fitted.spec)
        self.built_in: BuiltIn | None = fitted.made
        self.spread = _spread_of(fitted)
        self.counts = counts


def _kept(fitted: FittedStep) -> tuple[tuple[str, str], ...]:
    """Return names of outputs of a step and references."""
    # Until they are merged, the rows of a step with a condition have names of their own.
    mark = CHOSEN if fitted.test is not None else ""
    name = fitted.step.name
    return tuple([(tensor.name, f"{name}.{tensor.name}{mark}") for tensor in fitted.outputs])


def _takes_texts(spec: ModelSpec) -> bool:
    return "BYTES" in [tensor.datatype.name for tensor in spec.inputs]


def _spread_of(fitted: FittedStep) -> str:
    """Return the name of the value that says how many rows each row has become; else empty."""
    made = fitted.made
    if made is None or not (made.spreads or made.folds):
        return ""
    return f"{fitted.step.name if made.spreads else fitted.rows}.{COUNTS}"


def _looked_at(node: Node, fitted: FittedStep) -> tuple[str, ...]:
    """Return references to all that `node` works on, each once."""
    if node.merges:
        return tuple([reference for _, reference in node.outputs])
    condition = fitted.step.condition
    tested = condition.references if condition is not None else ()
    return tuple(dict.fromkeys([*[reference for _, reference in node.inputs], *tested]))


@final
class Graph:
    """The nodes of a pipeline.

    Attributes:
        nodes: all of them.
        first: those that need no other, the last one first.
        needs: how many others each node needs.
        outputs: names of the pipeline's outputs, and references.
    """

    def __init__(
        self,
        fitted: Fitted,
        find: Mapping[str, Callable[[], Servable]],
        code: Mapping[str, Code],
        counts: PipelineCounts,
    ) -> None:
        """Link the steps `fitted`; `find` and `code` have models and classes by step."""
        self.nodes: list[Node] = []
        self.outputs: tuple[tuple[str, str], ...] = tuple(fitted.plan.outputs.items())
        makers: dict[str, Node] = {}
        for step in fitted.steps:
            self._add(step, makers, counts.of(step.step.name))
        for node in self.nodes:
            node.find, node.code = find.get(node.name), code.get(node.name)
        self.first = [node for node in reversed(self.nodes) if not node.needs]
        self.needs = [node.needs for node in self.nodes]

    def keep_on_device(self, passages: Sequence[Passage]) -> None:
        """Look for rows on a device where values of `passages` come and go, and nowhere else."""
        kept = {(passage.maker.name, passage.output) for passage in passages}
        taken = {(passage.taker.name, passage.input) for passage in passages}
        for node in self.nodes:
            if not node.merges:
                node.keeps = tuple([ref for out, ref in node.outputs if (node.name, out) in kept])
                node.takes = tuple([name for name, _ in node.inputs if (node.name, name) in taken])

    def _add(self, step: FittedStep, makers: dict[str, Node], counts: StepCounts) -> None:
        call = Node(len(self.nodes), step, len(self.nodes), counts)
        self.nodes.append(call)
        folded = [step.rows] if step.made is not None and step.made.folds else []
        _link(call, [*map(_maker, call.looks_at), *folded], makers)
        makers[call.name] = call
        if step.test is not None:
            merge = Node(len(self.nodes), step, call.index, counts)
            self.nodes.append(merge)
            others = [name for name in step.step.otherwise.values() if isinstance(name, str)]
            _link(merge, [call.name, *map(_maker, others)], makers)
            makers[call.name] = merge


def _maker(reference: str) -> str:
    return reference.partition(".")[0]


def _link(node: Node, names: Sequence[str], makers: Mapping[str, Node]) -> None:
    """Have `node` wait for the makers of `names`; inputs of the request have none."""
    before = {id(makers[name]): makers[name] for name in names if name in makers}
    node.needs = len(before)
    for maker in before.values():
        maker.followers.append(node)
