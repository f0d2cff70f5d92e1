"""The graph of a pipeline as requests run it: nodes that know what they need and what follows.

Each step is a node. A step with `when` is two, so that whatever stands in for the rows that the
step does not get may be made at the same time:

    large (when …, else small.scores)      node `large`   gets the chosen rows
                                           node `large:`  waits for `large` and for `small`, merges

A graph is made when a pipeline is loaded or one of its models has changed. Requests on their way
keep the graph that they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batcher.core.spec import Array, ModelSpec
from batcher.serving.pipelines.built_in.built_in import COUNTS, BuiltIn
from batcher.serving.pipelines.counts import PipelineCounts, StepCounts
from batcher.serving.pipelines.fitting import Fitted, FittedStep
from batcher.serving.servable import Servable

Code = Callable[[Mapping[str, Array]], Any]
"""What the class of a step has made: called with the inputs of a request."""


class Node:
    """Something to do for each request, once what it needs is there. Reactor thread.

    Attributes:
        index: place of the node in its graph.
        fitted: the step.
        needs: how many other nodes come before it.
        followers: nodes that need it.
        merges: whether it puts the rows of a step and those of its `else` together.
        inputs: names of inputs of the step and references, what the step gets.
        tested: references that the condition looks at.
        find: finds the model that answers now; None for a step without a model.
        code: the author's code; None for a step without a class.
        counts: where rows are counted.
        spread: name of the value that says how many rows each row has become; empty for a step that
            neither spreads nor folds.
    """

    __slots__ = (
        "built_in",
        "code",
        "counts",
        "find",
        "fitted",
        "followers",
        "index",
        "inputs",
        "is_exact",
        "merges",
        "name",
        "needs",
        "outputs",
        "spec",
        "spread",
        "tested",
    )

    def __init__(self, index: int, fitted: FittedStep, merges: bool, counts: StepCounts) -> None:
        """Begin without neighbours."""
        step = fitted.step
        self.index = index
        self.fitted = fitted
        self.name = step.name
        self.merges = merges
        self.needs = 0
        self.followers: list[Node] = []
        self.inputs = tuple(step.inputs.items())
        self.tested = step.condition.references if step.condition is not None else ()
        self.find: Callable[[], Servable] | None = None
        self.code: Code | None = None
        self.built_in: BuiltIn | None = fitted.made
        self.spec: ModelSpec = fitted.spec
        self.is_exact = fitted.is_exact
        self.counts = counts
        # Until they are merged, the rows of a step with a condition have names of their own.
        mark = CHOSEN if fitted.test is not None else ""
        self.outputs = tuple([(t.name, f"{step.name}.{t.name}{mark}") for t in fitted.outputs])
        self.spread = ""
        if fitted.made is not None and fitted.made.spreads:
            self.spread = f"{step.name}.{COUNTS}"
        elif fitted.made is not None and fitted.made.folds:
            self.spread = f"{fitted.rows}.{COUNTS}"


CHOSEN = "\0"
"""Ends the name of a value that has the chosen rows alone."""


class Graph:
    """The nodes of a pipeline.

    Attributes:
        nodes: all of them.
        first: those that need no other.
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
        self.outputs = tuple(fitted.plan.outputs.items())
        makers: dict[str, Node] = {}
        for step in fitted.steps:
            self._add(step, makers, counts.of(step.step.name))
        for node in self.nodes:
            node.find, node.code = find.get(node.name), code.get(node.name)
        self.first = [node for node in self.nodes if not node.needs]

    def _add(self, step: FittedStep, makers: dict[str, Node], counts: StepCounts) -> None:
        call = Node(len(self.nodes), step, False, counts)
        self.nodes.append(call)
        folded = [step.rows] if step.made is not None and step.made.folds else []
        names = [*(name for _, name in call.inputs), *call.tested]
        _link(call, [*map(_maker, names), *folded], makers)
        makers[call.name] = call
        if step.test is not None:
            merge = Node(len(self.nodes), step, True, counts)
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
