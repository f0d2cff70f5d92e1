"""A request between its arrival and its end, as the scheduler keeps it.

Most requests fit into one batch, so the request is its own only part and costs one object. A
request of more rows than a batch may have is cut into parts, and so is a part that does not fit
into the device's memory. The results of the parts are joined when the last one is there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from twisted.internet.defer import Deferred

from batcher.batching.part import Part
from batcher.batching.queue import BatchQueue
from batcher.core.device_rows import InputsOnDevice
from batcher.core.ragged import concatenated
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.spec import Array
from batcher.errors import ModelContractError


class PendingRequest(Part):
    """A request that has not been answered, and, unless it was cut, its own only part.

    Reactor thread.

    Attributes:
        request: the rows and parameters that the client sent.
        deferred: fires with the response.
        finished: whether the request has been answered, or is being answered right now.
        has_run: whether some of its rows have run, or may have, though it is not answered.
    """

    finished = False
    has_run = False
    # shared by all requests and never changed: `cut` and `halve` start with a list of their own
    _pieces: list[Part] = []  # noqa: RUF012
    _results: list[InferenceResponse | None] | None = None

    def __init__(
        self,
        request: InferenceRequest,
        nbytes: int,
        group: Hashable,
        level: int,
        arrival: float,
        deadline: float,
        on_cancel: Callable[[PendingRequest], None],
    ) -> None:
        """Keep `request`; `on_cancel` is called when its Deferred is cancelled.

        The rest is as in `Part`, whose constructor is not called: one call less a request.
        """
        self.inputs = request.inputs
        self.rows = request.rows
        self.nbytes = nbytes
        self.group = group
        self.level = level
        self.arrival = arrival
        self.deadline = deadline
        self.overdue = self.overtaken = 0
        self.request = request
        self._on_cancel = on_cancel
        self.deferred: Deferred[InferenceResponse] = Deferred(self._cancel)

    @property
    def parts(self) -> Sequence[Part]:
        """All parts of the request, those that have come back included."""
        return self._pieces or (self,)

    def cut(self, size: int) -> None:
        """Cut the request into parts of at most `size` rows."""
        self._pieces = [
            self._piece(self, start, min(size, self.rows - start))
            for start in range(0, self.rows, size)
        ]
        self._results = [None] * len(self._pieces)

    def halve(self, part: Part) -> Sequence[Part]:
        """Cut `part`, of two rows at least, into two parts that take its place; return them."""
        middle = part.rows // 2
        halves = [self._piece(part, 0, middle), self._piece(part, middle, part.rows - middle)]
        if self._results is None:
            self._pieces, self._results = halves, [None, None]
        else:
            index = self._pieces.index(part)
            self._pieces[index : index + 1] = halves
            self._results[index : index + 1] = [None, None]
        return halves

    def receive(
        self,
        part: Part,
        rows: Mapping[str, Array],
        version: str,
        queue: float,
        compute: float,
        batch_size: int,
    ) -> InferenceResponse | None:
        """Take the result of one part; return the response of the request if it is complete.

        `rows` are the outputs of the part; the rest goes into the response as it is.

        Raises:
            ModelContractError: the results of the parts do not fit together.
        """
        result = InferenceResponse(self.request.model, version, rows, queue, compute, batch_size)
        results = self._results
        if results is None:
            return result
        self.has_run = True
        results[self._pieces.index(part)] = result
        done = [each for each in results if each is not None]
        return _joined(done) if len(done) == len(results) else None

    def in_flight(self, part: Part) -> bool:
        """Return whether `part`, which has left the queue, has not come back."""
        return self._results is None or self._results[self.parts.index(part)] is None

    def drop(self, queue: BatchQueue, counts: dict[str, int]) -> int:
        """Remove the request from `queue`; return how many of its rows waited there.

        `counts` gains those rows under `queued`, and under `in_flight` the rows that have left the
        queue and have not come back.
        """
        queued = in_flight = 0
        for part in self.parts:
            if queue.remove(part):
                queued += part.rows
            elif self.in_flight(part):
                in_flight += part.rows
        counts["queued"] += queued
        counts["in_flight"] += in_flight
        return queued

    def finish(self) -> None:
        """Mark the request as answered, and let its parts and results go."""
        self.finished = True
        self._pieces = []
        self._results = []

    def _piece(self, part: Part, start: int, rows: int) -> Part:
        end, whole = start + rows, part.inputs
        inputs: Mapping[str, Array]
        if isinstance(whole, InputsOnDevice):
            inputs = whole.rows(start, end)
        else:
            inputs = {name: array[start:end] for name, array in whole.items()}
        # Its share by rows: the elements of texts are counted once, and the parts together take
        # up what the whole takes.
        nbytes = part.nbytes * end // part.rows - part.nbytes * start // part.rows
        return Part(
            inputs,
            rows,
            nbytes,
            self.group,
            self.level,
            self.arrival,
            self.deadline,
            self,
        )

    def _cancel(self, deferred: object) -> None:
        self._on_cancel(self)


def _joined(results: list[InferenceResponse]) -> InferenceResponse:
    """Return the response of a request whose parts have `results`, in the order of its rows."""
    return InferenceResponse(
        results[0].model,
        results[0].version,
        _joined_outputs([result.outputs for result in results]),
        max(result.queue for result in results),
        sum(result.compute for result in results),
        max(result.batch_size for result in results),
    )


def _joined_outputs(results: list[Mapping[str, Array]]) -> dict[str, Array]:
    names = list(results[0])
    joined = {}
    for name in names:
        pieces = [rows[name] for rows in results if name in rows]
        if len(pieces) < len(results):
            raise ModelContractError(
                f"output {name!r}: expected the output of each of the {len(results)} batches that "
                f"the request was cut into; got that of {len(pieces)}"
            )
        # Each piece is what the model promises, so shapes differ in free axes alone.
        joined[name] = concatenated(pieces)
    return joined


def owner(part: Part) -> PendingRequest:
    """Return the request that `part` belongs to."""
    found = part if type(part) is PendingRequest else part.owner
    assert isinstance(found, PendingRequest)
    return found


def halve(part: Part) -> Sequence[Part]:
    """Cut `part`, of two rows at least, in two; return nothing if its request has ended."""
    pending = owner(part)
    return () if pending.finished else pending.halve(part)
