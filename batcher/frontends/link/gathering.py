"""Small requests, and small answers, of one turn of the loop: many of them are one message.

What they have in common is written once, and their rows lie one behind the other in one array, from
which the other end cuts the rows of each. At either end a request costs a tenth of what it costs
the link with a message, a dictionary and an array of its own.

| | shares a message with |
|---|---|
| a request | requests for the same key whose inputs have the same names, dtypes and shapes |
| an answer | answers out of the same batch |

Large arrays go alone: they would be copied once more, and each row that is still in use keeps the
memory of all rows of its array.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np

from batcher.core.request import (
    NO_PARAMETERS,
    BatchOutputs,
    InferenceRequest,
    InferenceResponse,
    OutputRows,
)
from batcher.core.spec import Array
from batcher.frontends.link.arrays import write_array
from batcher.frontends.link.frames import Message
from batcher.frontends.link.messages import ANSWER, ASK
from batcher.workers.shared_memory.region import Lender

SMALL_BYTES: Final = 1 << 12
"""Most bytes of a request's inputs, and of a row of outputs, that share arrays with others: a page,
which is copied in less time than it takes to look after one more array.
"""

SHARED_BYTES: Final = 1 << 16
"""Bytes of inputs that fill a message: so much memory is kept while one of its requests waits."""


class Gathered(ABC):
    """What leaves in one message at the end of the turn. Reactor thread.

    Attributes:
        is_open: whether it has still to leave, so that more can be added.
        numbers: of the requests.
    """

    def __init__(self) -> None:
        """Begin without a request, and closed: a channel that is open opens it."""
        self.is_open = False
        self.numbers: list[int] = []

    @abstractmethod
    def message(self, lender: Lender) -> Message:
        """Return the message, and let go of the arrays; `lender` has memory for large ones."""


@final
class Asks(Gathered):
    """Requests for one key whose inputs are alike. Reactor thread."""

    def __init__(self, generation: int, key: tuple[str, str], request: InferenceRequest) -> None:
        """Gather requests such as `request`."""
        super().__init__()
        self._generation = generation
        self._key = key
        self._rows = request.rows
        self._like = dict(request.inputs)
        self._inputs: dict[str, list[Array]] = {name: [] for name in self._like}
        self._parameters: list[tuple[Any, ...] | None] = []
        self._most = SHARED_BYTES // max(1, _nbytes(self._like))

    def add(self, number: int, generation: int, request: InferenceRequest) -> bool:
        """Add `request`; return whether it is like the others, and there is room for it."""
        if not self.is_open or generation != self._generation or len(self.numbers) >= self._most:
            return False
        inputs = request.inputs
        for name, like in self._like.items():
            array = inputs[name]  # whoever asks for one key gives the inputs of one model
            if array.shape != like.shape or array.dtype != like.dtype:
                return False
        for name, column in self._inputs.items():
            column.append(inputs[name])
        given = request.parameters
        self._parameters.append(None if given is NO_PARAMETERS else tuple(given))
        self.numbers.append(number)
        return True

    def message(self, lender: Lender) -> Message:
        """Return the message, and let go of the arrays."""
        columns, self._inputs, self._like = self._inputs, {}, {}
        given, self._parameters = self._parameters, []
        inputs = {name: write_array(_joined(each), lender) for name, each in columns.items()}
        name, version = self._key
        return ASK, self.numbers, self._generation, name, version, self._rows, given, inputs


@final
class Answers(Gathered):
    """Answers out of one batch. Reactor thread."""

    def __init__(self, response: InferenceResponse, batch: BatchOutputs) -> None:
        """Gather answers such as `response`, with rows of `batch`."""
        super().__init__()
        self._model, self._version = response.model, response.version
        self._compute, self._batch_size = response.compute, response.batch_size
        self._batch: BatchOutputs | None = batch
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._queues: list[float] = []

    def add(self, number: int, response: InferenceResponse, rows: OutputRows) -> bool:
        """Add `response` with `rows` as outputs; return whether they are of the same batch."""
        if not self.is_open or rows.batch is not self._batch or response.model != self._model:
            return False
        self._starts.append(rows.start)
        self._stops.append(rows.stop)
        self._queues.append(response.queue)
        self.numbers.append(number)
        return True

    def message(self, lender: Lender) -> Message:
        """Return the message, and let go of the batch."""
        batch, self._batch = self._batch, None
        assert batch is not None, "there is one message"
        runs = _runs(self._starts, self._stops)
        outputs = {}
        for name, array in batch.arrays.items():
            rows = [array[start:stop] for start, stop in runs]
            outputs[name] = write_array(_joined(rows), lender)
        counts = [stop - start for start, stop in zip(self._starts, self._stops, strict=True)]
        head = (ANSWER, self.numbers, self._model, self._version, outputs, counts)
        return (*head, self._queues, self._compute, self._batch_size, "", ())


def is_small(arrays: Mapping[str, Array], rows: int) -> bool:
    """Return whether `rows` rows of `arrays`, which hold as many, share a message with others."""
    for array in arrays.values():
        if array.dtype.hasobject:
            return False
    return _nbytes(arrays) <= SMALL_BYTES * rows


def _nbytes(arrays: Mapping[str, Array]) -> int:
    nbytes = 0
    for array in arrays.values():
        nbytes += array.nbytes
    return nbytes


def _joined(arrays: Sequence[Array]) -> Array:
    """Return the rows of all `arrays`, one array behind the other."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _runs(starts: Sequence[int], stops: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges from `starts` to `stops` in their order, those that touch as one."""
    runs: list[tuple[int, int]] = []
    first, end = starts[0], starts[0]
    for start, stop in zip(starts, stops, strict=True):
        if start != end:
            runs.append((first, end))
            first = start
        end = stop
    runs.append((first, end))
    return runs
