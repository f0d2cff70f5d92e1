"""One request on its way through a pipeline.

    image --> node small --> small.scores --> node large --> large.scores --> answer

A node begins when all values that it needs are there. Its model gets the request's rows as a
request of its own, so they share batches with whatever else that model has to answer. The request
ends exactly once: with its outputs, or with the first error, which cancels all that still runs.

When a batch of one model comes back, the requests in it begin with their next nodes one after the
other, in one turn of the loop. So the next model gets their rows together, in one batch.

Nothing waits for room: a model whose queue is full refuses the rows, and the request fails. So
requests hold nothing that another one needs, and cannot wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, NamedTuple, final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from batcher.core.device_rows import RowsOnDevice
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters, StepTimes
from batcher.core.spec import Array
from batcher.errors import BatcherError, Unavailable
from batcher.models.model_errors import model_error
from batcher.serving.pipelines.asking import ask
from batcher.serving.pipelines.built_in.built_in import COUNTS
from batcher.serving.pipelines.graph import Graph, Node
from batcher.serving.pipelines.step_work import (
    MAX_LOOP_BYTES,
    MAX_SORTED_BYTES,
    bytes_of,
    choose,
    inputs_on_device,
    is_quick,
    joined,
    run_code,
    values_on_device,
)
from batcher.serving.servable import Servable
from batcher.workers.pool import CpuPool

Take = Callable[[Node, Any], None]
"""Takes what a node has made."""


class Surroundings(NamedTuple):
    """What all requests of a pipeline use.

    Attributes:
        pool: runs what is too slow for the loop.
        seconds: the clock.
        max_level: the priority of bulk at the pipeline.
        default_level: the priority of a request without one.
        failed: hears the name of a step without a model that has failed, and why.
        ended: hears of the end of a request of so many rows and bytes, which came at a time in
            seconds, and of its error; None if the request was answered.
    """

    pool: CpuPool
    seconds: Callable[[], float]
    max_level: int
    default_level: int
    failed: Callable[[str, BaseException], None]
    ended: Callable[[int, int, float, BaseException | None], None]


@final
class Run:
    """Answers one request. Reactor thread."""

    _is_pumping = False
    _ended = False
    _has_run = False
    """Whether rows of a model, or the author's code, have run."""

    _is_kept = False
    """Whether a model has answered by what it had kept."""

    _on_device: dict[int, RowsOnDevice] | None = None
    """Where values lie on a device, by the `id` of their arrays; None while none does."""

    _queue = 0.0
    _compute = 0.0
    _batch_size = 0

    def __init__(
        self,
        graph: Graph,
        request: InferenceRequest,
        nbytes: int,
        now: float,
        deadline: float,
        around: Surroundings,
    ) -> None:
        """Prepare to answer `request`, of `nbytes` bytes, which comes `now`; `begin` begins."""
        self._parameters = _for_steps(request.parameters, deadline, around.default_level)
        self._answered: Deferred[InferenceResponse] | None = Deferred(self._cancelled)
        self._graph, self._around = graph, around
        self._request, self._nbytes = request, nbytes
        # The latter is when the last value has come: then the nodes that need it could begin.
        self._came_at = self._now = now
        self._values: dict[str, Array] = dict(request.inputs)
        self._places: dict[int, Array] = {}  # of the rows that a condition has chosen, by node
        self._waits = graph.needs.copy()
        self._left = len(self._waits)
        self._active: dict[int, Deferred[Any]] = {}
        self._began: dict[int, float] = {}
        self._rows: dict[int, int] = {}  # of nodes that work
        self._steps: list[StepTimes] = []
        self._ready = graph.first.copy()

    def begin(self) -> Deferred[InferenceResponse]:
        """Begin with the nodes that need no other.

        The Deferred fires with the response; to cancel it cancels all that runs.
        """
        answered = self._answered
        assert answered is not None, "a run begins once"
        self._pump()
        return answered

    def _pump(self) -> None:
        """Begin with all nodes that are ready; nodes that end at once make others ready."""
        if self._is_pumping:
            return
        self._is_pumping = True
        ready = self._ready
        while ready and not self._ended:
            node = ready.pop()
            try:
                self._begin(node)
            except Exception:  # refused at once, or NumPy's own errors
                self._fail(node, Failure())
        self._is_pumping = False
        if not self._left and not self._ended:
            self._answer()

    def _begin(self, node: Node) -> None:
        if node.merges:
            self._merge(node)
            return
        values = self._values
        inputs: dict[str, Array] = {}
        for name, reference in node.inputs:
            inputs[name] = values[reference]
        rows = len(values[node.first])
        self._began[node.index] = self._now
        self._rows[node.index] = rows
        if node.test is None:
            self._call(node, inputs, rows)
        elif is_quick(node, values, MAX_LOOP_BYTES):
            self._choice(node, choose(node, inputs, values))
        else:
            self._on_pool(node, partial(choose, node, inputs, values), self._choice)

    def _choice(self, node: Node, choice: tuple[Array, dict[str, Array]]) -> None:
        """Call a step with the rows that its condition has chosen."""
        places, inputs = choice
        index, chosen = node.index, len(places)
        self._places[index] = places
        node.counts.skipped += self._rows[index] - chosen
        self._rows[index] = chosen
        self._call(node, inputs, chosen)

    def _call(self, node: Node, inputs: dict[str, Array], rows: int) -> None:
        if not rows and not node.spread:
            self._store(node, node.empty)
        elif node.find is not None:
            self._ask(node, node.find(), inputs, rows)
        elif node.built_in is not None:
            if node.built_in.folds:
                inputs[COUNTS] = self._values[node.spread]
            if not node.built_in.is_slow and is_quick(node, self._values, MAX_SORTED_BYTES):
                self._store(node, node.built_in.run(inputs))
            else:
                self._on_pool(node, partial(node.built_in.run, inputs), self._store)
        else:
            self._has_run = True
            self._on_pool(node, partial(run_code, node, inputs, rows), self._store)

    def _ask(self, node: Node, servable: Servable, inputs: dict[str, Array], rows: int) -> None:
        """Have a model answer."""
        if node.takes and self._on_device:
            inputs = inputs_on_device(node, inputs, self._on_device)
        parameters = self._parameters_for(servable)
        answer: Deferred[Any]
        if node.is_plain and servable.spec is node.spec:
            answer = servable.infer_fitting(inputs, rows, parameters)
        else:
            answer = ask(node, servable, inputs, rows, parameters)
        self._active[node.index] = answer
        answer.addCallbacks(self._responded, self._failed, (node,), errbackArgs=(node,))

    def _responded(self, response: InferenceResponse, node: Node) -> None:
        """Take the answer of a model."""
        self._active.pop(node.index, None)
        if self._ended:
            return
        self._queue += response.queue
        self._compute += response.compute
        times = node.name, response.queue, response.compute, response.batch_size
        self._steps.append(times)
        if response.batch_size > self._batch_size:
            self._batch_size = response.batch_size
        if response.origin:
            self._is_kept = True
        else:
            self._has_run = True
        self._take(node, response.outputs, self._store)

    def _merge(self, node: Node) -> None:
        """Put the rows of a step and those of its `else` together."""
        places, values = self._places[node.call], self._values
        rows, chosen = len(values[node.first]), len(places)
        # All rows, or none: then nothing is copied.
        is_whole = chosen == rows or not (chosen or node.joins_fixed)
        if is_whole or is_quick(node, values, MAX_LOOP_BYTES):
            self._store(node, joined(node, values, places, rows))
        else:
            self._on_pool(node, partial(joined, node, values, places, rows), self._store)

    def _on_pool(self, node: Node, function: Callable[[], Any], take: Take) -> None:
        """Have `take` get what `function` returns, from the pool."""
        parameters = self._parameters
        deadline = parameters.deadline
        assert deadline is not None, "every run has a deadline"
        nbytes = bytes_of(node, self._values)
        answer = self._around.pool.run(nbytes, deadline, function, parameters.client)
        self._active[node.index] = answer
        answer.addCallbacks(self._came, self._failed, (node, take), errbackArgs=(node,))

    def _came(self, result: Any, node: Node, take: Take) -> None:
        """Take what the pool has made."""
        self._active.pop(node.index, None)
        if not self._ended:
            self._take(node, result, take)

    def _take(self, node: Node, result: Any, take: Take) -> None:
        try:
            take(node, result)
        except Exception:
            self._fail(node, Failure())
            return
        self._pump()

    def _failed(self, failure: Failure, node: Node) -> None:
        self._active.pop(node.index, None)
        if not self._ended:
            self._fail(node, failure)

    def _store(self, node: Node, outputs: Mapping[str, Array]) -> None:
        """Keep what a node has made, and note which nodes are ready."""
        values = self._values
        if node.merges:
            for join in node.joins:
                values[join.name] = outputs[join.name]
        else:
            for name, reference in node.outputs:
                values[reference] = outputs[name]
            if node.keeps:
                self._on_device = values_on_device(node, values, self._on_device)
            if node.spread and COUNTS in outputs:
                values[node.spread] = outputs[COUNTS]
            self._now = now = self._around.seconds()
            seconds, rows = now - self._began[node.index], self._rows.pop(node.index)
            node.counts.run += rows
            node.counts.seconds.observe(seconds)
            if node.find is None and rows:
                self._steps.append((node.name, 0.0, seconds, 0))
        self._left -= 1
        for follower in node.followers:
            waits = self._waits[follower.index] - 1
            self._waits[follower.index] = waits
            if not waits:
                self._ready.append(follower)

    def _parameters_for(self, servable: Servable) -> Parameters:
        """Return the parameters of the request with a priority that `servable` has."""
        parameters, bulk = self._parameters, servable.max_level
        level = parameters.priority
        wanted = bulk if level == self._around.max_level else min(level, bulk - 1)
        return parameters if wanted == level else parameters._replace(priority=wanted)

    def _answer(self) -> None:
        request, values = self._request, self._values
        outputs: dict[str, Array] = {}
        for name, reference in self._graph.outputs:
            outputs[name] = values[reference]
        origin = "hit" if self._is_kept and not self._has_run else ""
        response = InferenceResponse(
            request.model,
            request.version,
            outputs,
            self._queue,
            self._compute,
            self._batch_size,
            origin,
            self._steps,
        )
        self._ended = True
        self._end(None).callback(response)

    def _fail(self, node: Node, failure: Failure) -> None:
        """End the request with the error of `node`."""
        error = failure.value
        assert error is not None, "a failure has an error"
        if node.find is None:
            self._around.failed(node.name, error)
        if not isinstance(error, BatcherError):  # NumPy's, such as that there is no memory
            error = model_error(error)
            failure = Failure(error)
        elif isinstance(error, Unavailable) and (self._has_run or self._active):
            # A part has run, or may run now: nobody must be asked to send the request again.
            error = copy(error)
            error.retry_after = 0
            failure = Failure(error)
        self._drop(error).errback(failure)

    def _cancelled(self, _: object) -> None:
        self._drop(CancelledError())

    def _drop(self, error: BaseException) -> Deferred[InferenceResponse]:
        """Drop whatever runs, and tell the end; return what is to fire."""
        self._ended = True
        nodes = self._graph.nodes
        for index, rows in self._rows.items():
            nodes[index].counts.dropped += rows
        active, self._active = self._active, {}
        for answer in active.values():
            answer.cancel()
        return self._end(error)

    def _end(self, error: BaseException | None) -> Deferred[InferenceResponse]:
        """Tell the end, and return what is to fire."""
        self._around.ended(self._request.rows, self._nbytes, self._came_at, error)
        self._on_device = None
        # Let go of it: it holds on to this run, which would wait for the garbage collector.
        answered, self._answered = self._answered, None
        assert answered is not None, "a request ends once"
        return answered


def _for_steps(own: Parameters, deadline: float, default_level: int) -> Parameters:
    """Return the parameters of what steps ask, for a request with the parameters `own`."""
    # No key: the rows were charged to the quota of the pipeline's client at the door. Nor does the
    # client repeat what the models get: that is other inputs.
    level = own.priority or default_level
    return Parameters(deadline, level, None, own.client, own.route, own.fresh, "")
