"""One request on its way through a pipeline.

    image --> node small --> small.scores --> node large --> large.scores --> answer

A node begins when all values that it needs are there. Its model gets the request's rows as a
request of its own, so they share batches with whatever else that model has to answer. The request
ends exactly once: with its outputs, or with the first error, which cancels all that still runs.

Nothing waits for room: a model whose queue is full refuses the rows, and the request fails. So
requests hold nothing that another one needs, and cannot wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.element_sizes import SizedArrays, about_nbytes
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import BatcherError, ModelNotReady, Unavailable
from batcher.models.hook_contract import own_copy, run_postprocess
from batcher.models.model_errors import model_error
from batcher.serving.pipelines.built_in.built_in import COUNTS
from batcher.serving.pipelines.graph import CHOSEN, Graph, Node
from batcher.serving.pipelines.rows import chosen_rows, merged, no_rows
from batcher.serving.servable import Servable
from batcher.serving.stages.uneven_rows import PieceAnswers, PieceWait, pieces_of
from batcher.workers.pool import CpuPool

MAX_LOOP_BYTES = 128 << 10
"""Bytes of arrays up to which NumPy works on the loop: some tens of microseconds."""

MAX_SORTED_BYTES = 32 << 10
"""The same of built-in steps: to sort 8,192 scores takes half a millisecond."""

MAX_LOOP_ROWS = 256
"""Rows up to which a step works on the loop: ragged rows, and those that are folded, cost one to
three microseconds each.
"""


class Surroundings(NamedTuple):
    """What all requests of a pipeline use.

    Attributes:
        pool: runs what is too slow for the loop.
        seconds: the clock.
        max_level: the priority of bulk at the pipeline.
        default_level: the priority of a request without one.
        failed: hears the name of a step without a model that has failed, and why.
    """

    pool: CpuPool
    seconds: Callable[[], float]
    max_level: int
    default_level: int
    failed: Callable[[str, BaseException], None]


class Run:
    """Answers one request. Reactor thread.

    Attributes:
        answered: fires with the response; to cancel it cancels all that runs.
    """

    __slots__ = (
        "_active",
        "_around",
        "_batch_size",
        "_begun",
        "_chosen",
        "_compute",
        "_ended",
        "_graph",
        "_is_pumping",
        "_left",
        "_parameters",
        "_queue",
        "_ready",
        "_request",
        "_values",
        "_waits",
        "answered",
    )

    def __init__(
        self, graph: Graph, request: InferenceRequest, deadline: float, around: Surroundings
    ) -> None:
        """Prepare to answer `request` by `deadline`; `begin` begins."""
        self.answered: Deferred[InferenceResponse] = Deferred(self._cancelled)
        self._graph = graph
        self._around = around
        self._request = request
        # No key: the rows were charged to the quota of the pipeline's client at the door.
        self._parameters = request.parameters._replace(deadline=deadline, key=None)
        self._values: dict[str, Array] = dict(request.inputs)
        self._chosen: dict[str, Array] = {}
        self._waits = [node.needs for node in graph.nodes]
        self._left = len(graph.nodes)
        self._active: dict[Node, Deferred[Any]] = {}
        self._begun: dict[Node, tuple[float, int]] = {}
        self._ready = list(reversed(graph.first))
        self._is_pumping = False
        self._ended = False
        self._queue = self._compute = 0.0
        self._batch_size = 0

    def begin(self) -> None:
        """Begin with the nodes that need no other."""
        self._pump()

    def _pump(self) -> None:
        """Begin with all nodes that are ready; nodes that end at once make others ready."""
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._ready and not self._ended:
            node = self._ready.pop()
            try:
                self._begin(node)
            except Exception:  # refused at once, or NumPy's own errors
                self._fail(node, Failure())
        self._is_pumping = False
        if not self._left and not self._ended:
            self._answer()

    def _begin(self, node: Node) -> None:
        if node.merges:
            self._compute_with(node, partial(self._merged, node), self._store)
            return
        values = self._values
        inputs = {name: values[reference] for name, reference in node.inputs}
        rows = len(inputs[node.inputs[0][0]])
        self._begun[node] = (self._around.seconds(), rows)
        if node.fitted.test is None:
            self._call(node, inputs, rows)
        else:
            self._compute_with(node, partial(_choose, node, inputs, values), self._choice)

    def _choice(self, node: Node, choice: tuple[Array, dict[str, Array]]) -> None:
        """Call a step with the rows that its condition has chosen."""
        places, inputs = choice
        self._chosen[node.name] = places
        began, rows = self._begun[node]
        node.counts.skipped += rows - len(places)
        self._begun[node] = (began, len(places))
        self._call(node, inputs, len(places))

    def _call(self, node: Node, inputs: dict[str, Array], rows: int) -> None:
        if not rows and not node.spread:
            self._store(node, {t.name: no_rows(t) for t in node.fitted.outputs})
        elif node.find is not None:
            self._ask(node, node.find(), inputs, rows)
        elif node.built_in is not None:
            if node.built_in.folds:
                inputs[COUNTS] = self._values[node.spread]
            self._compute_with(
                node, partial(node.built_in.run, inputs), self._store, node.built_in.spreads
            )
        else:
            run = partial(_run_code, node, inputs, rows)
            self._compute_with(node, run, self._store, True)

    def _ask(self, node: Node, servable: Servable, inputs: dict[str, Array], rows: int) -> None:
        """Have a model answer."""
        parameters = self._parameters_for(servable)
        _check_outputs(node, servable.spec)
        # A model that was replaced a moment ago may take other inputs than the graph knows.
        exact = node.is_exact and servable.spec is node.spec
        answer: Deferred[Any]
        if node.fitted.is_even or not any(map(is_ragged, inputs.values())):
            answer = servable.infer(_about_sized(inputs), parameters, exact)
        else:
            spec = servable.spec
            request = InferenceRequest(spec.name, spec.version, inputs, rows, parameters)

            def go_on(piece: InferenceRequest) -> Deferred[InferenceResponse]:
                return servable.infer(piece.inputs, piece.parameters)

            answer = PieceWait(pieces_of(request), go_on).answered
            answer.addCallback(PieceAnswers.joined)
        self._wait(node, answer, self._response)

    def _response(self, node: Node, response: InferenceResponse) -> None:
        self._queue += response.queue
        self._compute += response.compute
        self._batch_size = max(self._batch_size, response.batch_size)
        self._store(node, response.outputs)

    def _compute_with(
        self,
        node: Node,
        function: Callable[[], Any],
        take: Callable[[Node, Any], None],
        is_slow: bool = False,
    ) -> None:
        """Have `take` get what `function` returns, from the pool if that may take long."""
        nbytes = self._nbytes(node)
        most = MAX_LOOP_BYTES if node.built_in is None else MAX_SORTED_BYTES
        is_slow = is_slow or len(self._values[node.inputs[0][1]]) > MAX_LOOP_ROWS
        if not is_slow and nbytes <= most:
            take(node, function())
            return
        parameters = self._parameters
        deadline = parameters.deadline
        assert deadline is not None, "every run has a deadline"
        answer = self._around.pool.run(nbytes, deadline, function, parameters.client)
        self._wait(node, answer, take)

    def _nbytes(self, node: Node) -> int:
        """Return the bytes that a node works on."""
        names = [*(name for _, name in node.inputs), *node.tested]
        if node.merges:
            names = [name for _, name in node.outputs]
        return about_nbytes({name: self._values[name] for name in names})

    def _wait(self, node: Node, answer: Deferred[Any], take: Callable[[Node, Any], None]) -> None:
        self._active[node] = answer
        answer.addCallbacks(self._came, self._failed, (node, take), errbackArgs=(node,))

    def _came(self, result: Any, node: Node, take: Callable[[Node, Any], None]) -> None:
        self._active.pop(node, None)
        if self._ended:
            return
        try:
            take(node, result)
        except Exception:
            self._fail(node, Failure())
            return
        self._pump()

    def _failed(self, failure: Failure, node: Node) -> None:
        self._active.pop(node, None)
        if not self._ended:
            self._fail(node, failure)

    def _store(self, node: Node, outputs: Mapping[str, Array]) -> None:
        """Keep what a node has made, and note which nodes are ready."""
        values = self._values
        if node.merges:
            values.update(outputs)
        else:
            for name, reference in node.outputs:
                values[reference] = outputs[name]
            if COUNTS in outputs:
                values[node.spread] = outputs[COUNTS]
            began, rows = self._begun.pop(node)
            node.counts.run += rows
            node.counts.seconds.observe(self._around.seconds() - began)
        self._left -= 1
        for follower in node.followers:
            self._waits[follower.index] -= 1
            if not self._waits[follower.index]:
                self._ready.append(follower)

    def _merged(self, node: Node) -> dict[str, Array]:
        """Return what a step with a condition gives for all rows. Any thread."""
        places, values, step = self._chosen[node.name], self._values, node.fitted.step
        rows = len(values[node.inputs[0][1]])
        outputs = {}
        for tensor in node.fitted.outputs:
            name = f"{node.name}.{tensor.name}"
            instead = step.otherwise[tensor.name]
            other = values[instead] if isinstance(instead, str) else node.fitted.fixed[tensor.name]
            outputs[name] = merged(tensor, values[f"{name}{CHOSEN}"], places, other, rows)
        return outputs

    def _parameters_for(self, servable: Servable) -> Parameters:
        """Return the parameters of the request with a priority that `servable` has."""
        parameters, around = self._parameters, self._around
        level = parameters.priority or around.default_level
        if level == around.max_level:
            level = servable.max_level  # bulk
        else:
            level = min(level, servable.max_level - 1)
        return parameters if level == parameters.priority else parameters._replace(priority=level)

    def _answer(self) -> None:
        self._ended = True
        request, values = self._request, self._values
        outputs = {name: values[reference] for name, reference in self._graph.outputs}
        response = InferenceResponse(
            request.model, request.version, outputs, self._queue, self._compute, self._batch_size
        )
        self.answered.callback(response)

    def _fail(self, node: Node, failure: Failure) -> None:
        """End the request with the error of `node`."""
        error = failure.value
        assert error is not None, "a failure has an error"
        if node.find is None:
            self._around.failed(node.name, error)
        if not isinstance(error, BatcherError):  # NumPy's, such as that there is no memory
            failure = Failure(model_error(error))
        elif isinstance(error, Unavailable) and self._left < len(self._waits):
            # A part has run: nobody must be asked to send the request again.
            error = copy(error)
            error.retry_after = 0
            failure = Failure(error)
        self._end()
        self.answered.errback(failure)

    def _cancelled(self, _: object) -> None:
        self._end()

    def _end(self) -> None:
        """Drop whatever runs."""
        self._ended = True
        for node, (_, rows) in self._begun.items():
            node.counts.dropped += rows
        self._begun.clear()
        for answer in list(self._active.values()):
            answer.cancel()
        self._active.clear()


def _check_outputs(node: Node, spec: ModelSpec) -> None:
    """Raise ModelNotReady if a model that was replaced a moment ago answers in another way.

    The steps behind it take what it gives for what the graph knows.
    """
    if spec is node.spec:
        return
    given = {tensor.name: (tensor.datatype, tensor.shape) for tensor in spec.outputs}
    for tensor in node.fitted.outputs:
        if given.get(tensor.name) != (tensor.datatype, tensor.shape):
            raise ModelNotReady(
                f"step {node.name!r}: model {spec.name!r} was replaced by one with another output "
                f"{tensor.name!r} while the request ran"
            )


def _about_sized(inputs: dict[str, Array]) -> dict[str, Array]:
    """Return `inputs` with about their bytes: to add up those of many texts takes the loop long."""
    if not any(array.dtype.hasobject for array in inputs.values()):
        return inputs
    found = SizedArrays(inputs)
    found.nbytes = about_nbytes(inputs)
    return found


def _choose(
    node: Node, inputs: dict[str, Array], values: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Return the places of the rows that a step gets, and its inputs with them. Any thread."""
    assert node.fitted.test is not None
    mask = node.fitted.test(values)
    places = np.flatnonzero(mask)
    whole = len(places) == len(mask)
    return places, inputs if whole else chosen_rows(inputs, places)


def _run_code(node: Node, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
    """Return what the author's code makes of the rows of one request. Pool thread."""
    assert node.code is not None
    return run_postprocess(node.code, own_copy(inputs), node.spec, rows)
