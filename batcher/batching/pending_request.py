"""A request between its arrival and its end, as the scheduler keeps it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from twisted.internet.defer import Deferred

from batcher.batching.part import Part
from batcher.batching.queue import BatchQueue
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.spec import Array, nbytes_of, shape_text
from batcher.errors import ModelContractError


class PendingRequest(Part):
    """A request that has not been answered, and, unless it was cut, its own only part.

    Reactor thread.

    Attributes:
        request: what was asked.
        deferred: fires with the answer.
        finished: whether it has been answered, or is being answered right now.
        has_run: whether some of its rows have run, or may have, though it is not answered.
    """

    finished = False
    has_run = False
    # never changed: `cut` and `halve` begin with one of their own
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
        cancelled: Callable[[PendingRequest], None],
    ) -> None:
        """Keep `request`; `cancelled` is told when its Deferred is cancelled."""
        self.inputs = request.inputs
        self.rows = request.rows
        self.nbytes = nbytes
        self.group = group
        self.level = level
        self.arrival = arrival
        self.deadline = deadline
        self.request = request
        self._cancelled = cancelled
        self.deferred: Deferred[InferenceResponse] = Deferred(self._cancel)

    @property
    def parts(self) -> Sequence[Part]:
        """The parts that stand in the queue or run for it."""
        return self._pieces or (self,)

    def cut(self, size: int) -> None:
        """Cut the request into parts of at most `size` rows."""
        self._pieces = [
            self._piece(self, start, min(size, self.rows - start))
            for start in range(0, self.rows, size)
        ]
        self._results = [None] * len(self._pieces)

    def halve(self, part: Part) -> Sequence[Part]:
        """Cut `part`, of two rows at least, in two, which take its place; return them."""
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
        """Take the result of one part and where its time went.

        Return the whole answer once it was the last.

        Raises:
            ModelContractError: the parts' results do not fit together.
        """
        results = self._results
        if results is None:
            return InferenceResponse(self.request.model, version, rows, queue, compute, batch_size)
        self.has_run = True
        results[self._pieces.index(part)] = InferenceResponse(
            self.request.model, version, rows, queue, compute, batch_size
        )
        done = [result for result in results if result is not None]
        if len(done) < len(results):
            return None
        return InferenceResponse(
            self.request.model,
            version,
            _joined([result.outputs for result in done]),
            max(result.queue for result in done),
            sum(result.compute for result in done),
            max(result.batch_size for result in done),
        )

    def in_flight(self, part: Part) -> bool:
        """Whether `part`, which has left the queue, has not come back."""
        return self._results is None or self._results[self.parts.index(part)] is None

    def drop(self, queue: BatchQueue, counts: dict[str, int]) -> int:
        """Take what is left of it out of `queue`, add its rows to `counts`, and return how many still waited."""
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
        """Be answered: nothing of the request is held on to any more."""
        self.finished = True
        self._pieces = []
        self._results = []

    def _piece(self, part: Part, start: int, rows: int) -> Part:
        inputs = {name: array[start : start + rows] for name, array in part.inputs.items()}
        return Part(
            inputs,
            rows,
            nbytes_of(inputs),
            self.group,
            self.level,
            self.arrival,
            self.deadline,
            self,
        )

    def _cancel(self, deferred: object) -> None:
        self._cancelled(self)


def _joined(results: list[Mapping[str, Array]]) -> dict[str, Array]:
    names = list(results[0])
    joined = {}
    for name in names:
        pieces = [rows[name] for rows in results if name in rows]
        if len(pieces) < len(results) or len({piece.shape[1:] for piece in pieces}) > 1:
            shapes = ", ".join(sorted({shape_text(piece.shape[1:]) for piece in pieces}))
            raise ModelContractError(
                f"output {name!r}: expected rows of one shape in each batch that the request was "
                f"cut into; got {shapes}",
            )
        joined[name] = np.concatenate(pieces)
    return joined


def owner(part: Part) -> PendingRequest:
    """Return the request that `part` belongs to."""
    found = part if type(part) is PendingRequest else part.owner
    assert isinstance(found, PendingRequest)
    return found


def halve(part: Part) -> Sequence[Part]:
    """Cut `part`, of two rows at least, in two.

    What is left of a request that has ended is nothing.
    """
    pending = owner(part)
    return () if pending.finished else pending.halve(part)
