"""A request and its answer as values: what crosses from a protocol to the scheduler and back.

They are plain classes with slots, whose attributes are final: compiled, such an object is made in
less time than a named tuple or a frozen dataclass, and one of each is made for every request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import index
from typing import Any, Final, NamedTuple, final

from batcher.core.spec import Array
from batcher.errors import InvalidInput


class BatchOutputs:
    """The outputs of a whole batch, which the answers cut out of it share.

    Attributes:
        arrays: name to array of shape (rows of the batch, *row shape).
    """

    __slots__ = ("_bytes", "arrays")

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Hold `arrays`; nothing changes them any more."""
        self.arrays = arrays
        self._bytes: dict[str, tuple[bytes, int]] = {}

    def tobytes(self, name: str) -> tuple[bytes, int]:
        """Return the bytes of a whole output, row-major, and how many are a row.

        Made once, however many share them.
        """
        found = self._bytes.get(name)
        if found is None:
            array = self.arrays[name]
            found = self._bytes[name] = (array.tobytes(), array.nbytes // len(array))
        return found


class OutputRows(Mapping[str, Array]):
    """Some rows of a batch's outputs: name to array, each cut out when it is asked for."""

    __slots__ = ("_batch", "_start", "_stop")

    def __init__(self, batch: BatchOutputs, start: int, stop: int) -> None:
        """Show the rows from `start` to before `stop`."""
        self._batch = batch
        self._start = start
        self._stop = stop

    def __getitem__(self, name: str) -> Array:
        """Return the rows of the output `name`, a view."""
        rows: Array = self._batch.arrays[name][self._start : self._stop]
        return rows

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._batch.arrays)

    def __len__(self) -> int:
        """How many outputs there are."""
        return len(self._batch.arrays)

    def tobytes(self, name: str) -> bytes:
        """Return the bytes of the rows of the output `name`, cut out of those of the whole batch."""
        whole, unit = self._batch.tobytes(name)
        return whole[self._start * unit : self._stop * unit]


class Parameters(NamedTuple):
    """What a request asks for besides its result.

    Attributes:
        deadline: when the request is worthless, in seconds on the server's clock; None takes the
            model's default.
        priority: its level, 1 the highest; one more than there are levels is bulk; 0 is the model's
            default level.
        request_id: the client's name for it, only echoed and logged.
        key: a secret that says whose quota its rows are charged to, empty for none; None for a
            request that no quota is for.
    """

    deadline: float | None = None
    priority: int = 0
    request_id: str = ""
    key: str | None = ""


NO_PARAMETERS = Parameters()


def checked_parameters(parameters: Any, bulk: int) -> Parameters:
    """Return `parameters`, whatever a program put into them, with numbers of Python's own types.

    Raises:
        InvalidInput: the deadline is no number, or the priority none of the model's, the last of
            which is `bulk`.
    """
    deadline, priority, request_id, key = parameters
    try:
        deadline, priority = None if deadline is None else float(deadline), index(priority)
    except (TypeError, ValueError) as err:
        got = f"{deadline!r:.100} and {priority!r:.100}"
        raise InvalidInput(
            f"parameters: expected a deadline in seconds and a whole priority; got {got}"
        ) from err
    if deadline != deadline:
        raise InvalidInput("parameters: expected a deadline in seconds; got NaN")
    if not 0 <= priority <= bulk:
        raise InvalidInput(
            f"priority: expected 1 (the highest) to {bulk - 1}, or {bulk}, bulk; got {priority}"
        )
    return Parameters(deadline, priority, str(request_id), None if key is None else str(key))


@final
class InferenceRequest:
    """Rows for one model, checked against its specification.

    Attributes:
        model: the model's name.
        version: the version asked for; empty means the newest that is ready.
        inputs: name to array of shape (rows, *row shape); read only.
        rows: length of the first axis of every input, at least 1.
        parameters: deadline, priority and id.
    """

    __slots__ = ("inputs", "model", "parameters", "rows", "version")

    def __init__(
        self,
        model: str,
        version: str,
        inputs: Mapping[str, Array],
        rows: int,
        parameters: Parameters = NO_PARAMETERS,
    ) -> None:
        """Store the attributes."""
        self.model: Final = model
        self.version: Final = version
        self.inputs: Final = inputs
        self.rows: Final = rows
        self.parameters: Final = parameters

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied and pickled."""
        return InferenceRequest, (
            self.model,
            self.version,
            dict(self.inputs),
            self.rows,
            self.parameters,
        )


@final
class InferenceResponse:
    """One request's own rows of the result.

    Attributes:
        model: the model's name.
        version: the version that answered.
        outputs: name to array of shape (rows, *row shape).
        queue: seconds between arrival and the start of its batch; of its last batch if it was cut.
        compute: seconds that its batch took on the worker, collation included; the sum over batches
            if it was cut.
        batch_size: rows of the batch it ran in; of the largest if it was cut.
    """

    __slots__ = ("batch_size", "compute", "model", "outputs", "queue", "version")

    def __init__(
        self,
        model: str,
        version: str,
        outputs: Mapping[str, Array],
        queue: float,
        compute: float,
        batch_size: int,
    ) -> None:
        """Store the attributes."""
        self.model: Final = model
        self.version: Final = version
        self.outputs: Final = outputs
        self.queue: Final = queue
        self.compute: Final = compute
        self.batch_size: Final = batch_size

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied and pickled, with its own rows alone."""
        outputs = {name: self.outputs[name] for name in self.outputs}
        return InferenceResponse, (
            self.model,
            self.version,
            outputs,
            self.queue,
            self.compute,
            self.batch_size,
        )
