"""A request between its arrival and its end, as the scheduler keeps it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
from twisted.internet.defer import Deferred

from batcher.errors import BatcherError, ModelError
from batcher.request import InferenceRequest, InferenceResponse, Timing
from batcher.scheduling.batch import Batch
from batcher.scheduling.queue import Part
from batcher.spec import Array
from batcher.workers.protocol import Outcome


class Pending:
    """A request that has not been answered. Reactor thread."""

    __slots__ = (
        "arrival",
        "batch_size",
        "compute",
        "deadline",
        "deferred",
        "finished",
        "left",
        "parts",
        "request",
        "results",
        "wait",
    )

    def __init__(self, request: InferenceRequest, arrival: float, deadline: float) -> None:
        """Keep `request`, which arrived at `arrival` and is worthless after `deadline`, in seconds."""
        self.request = request
        self.arrival = arrival
        self.deadline = deadline
        self.finished = False
        self.deferred: Deferred[InferenceResponse]
        self.parts: list[Part]
        self.results: list[Mapping[str, Array] | None]
        self.left = 0
        self.wait = 0.0
        self.compute = 0.0
        self.batch_size = 0

    def cut(self, size: int, group: Hashable, level: int, nbytes: int) -> list[Part]:
        """Cut the request, `nbytes` large, into parts of at most `size` rows, and return them."""
        request = self.request
        if request.rows <= size:
            self.parts = [Part(request.inputs, request.rows, nbytes, group, level, self.arrival, self.deadline, self)]
        else:
            self.parts = [
                self._piece(start, min(size, request.rows - start), group, level) for start in range(0, request.rows, size)
            ]
        self.results = [None] * len(self.parts)
        self.left = len(self.parts)
        return self.parts

    def receive(self, part: Part, rows: Mapping[str, Array], wait: float, batch: Batch, outcome: Outcome) -> bool:
        """Take the result of one part, which waited `wait` seconds for its batch; return whether it was the last."""
        self.results[self.parts.index(part)] = rows
        self.left -= 1
        self.wait = max(self.wait, wait)
        self.compute += outcome.compute
        self.batch_size = max(self.batch_size, batch.rows)
        return self.left == 0

    def response(self, version: str) -> InferenceResponse:
        """Return the whole answer, put together again in the order of its rows."""
        results = [rows for rows in self.results if rows is not None]
        outputs = results[0]
        if len(results) > 1:
            outputs = {name: np.concatenate([rows[name] for rows in results]) for name in outputs}
        timing = Timing(self.wait, self.compute, self.batch_size)
        return InferenceResponse(self.request.model, version, outputs, timing)

    def _piece(self, start: int, rows: int, group: Hashable, level: int) -> Part:
        inputs = {name: array[start : start + rows] for name, array in self.request.inputs.items()}
        return Part(inputs, rows, nbytes_of(inputs), group, level, self.arrival, self.deadline, self)


def model_error(error: BaseException) -> BatcherError:
    """Return what a client is told of `error`, raised while a batch ran; the cause keeps the original."""
    if isinstance(error, BatcherError):
        return error
    told = ModelError(f"the model failed: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told


def nbytes_of(arrays: Mapping[str, Array]) -> int:
    """Return the bytes of all `arrays`; of object arrays those of their elements."""
    return sum(array.nbytes if array.dtype != object else sum(map(len, array.flat)) for array in arrays.values())
