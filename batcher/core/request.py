"""A request and its answer as values.

A front-end makes an `InferenceRequest` of the bytes that a client sent. The request goes to the
scheduler, and an `InferenceResponse` with its own rows of the result comes back.

Both are plain classes with slots, and their attributes are final. One object of each is made for
every request; compiled, such an object is made in less time than a named tuple or a frozen
dataclass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import index
from typing import Any, Final, NamedTuple, final

from batcher.core.element_sizes import LEAST_ELEMENT_BYTES, SizedArrays, bytes_of_elements
from batcher.core.error_text import brief
from batcher.core.spec import Array
from batcher.errors import InvalidInput

_MOST_COPIED_BYTES = 1 << 20
"""Bytes up to which the output of a batch is copied as a whole: half a millisecond of the loop."""


class BatchOutputs:
    """The outputs of a whole batch. All answers to requests of that batch share them.

    Attributes:
        arrays: name to array of shape (rows of the batch, *row shape).
    """

    __slots__ = ("_bytes", "arrays")

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Hold `arrays`, which nobody may change from now on."""
        self.arrays = arrays
        self._bytes: dict[str, tuple[bytes, int]] = {}

    def tobytes(self, name: str) -> tuple[bytes, int]:
        """Return the bytes of the whole output `name`, row-major, and how many bytes one row has.

        The bytes are made once, at the first call. A large output is not copied: it gives no bytes
        and a row of 0.
        """
        # A slice of bytes for each answer costs less than a slice of the array and a copy of that.
        found = self._bytes.get(name)
        if found is None:
            array = self.arrays[name]
            large = array.nbytes > _MOST_COPIED_BYTES
            found = (b"", 0) if large else (array.tobytes(), array.nbytes // len(array))
            self._bytes[name] = found
        return found


class OutputRows(Mapping[str, Array]):
    """Some rows of a batch's outputs: name to array. Each array is cut out at its first use.

    Attributes:
        batch: the outputs of the whole batch.
        start: the first row.
        stop: the row behind the last one.
    """

    __slots__ = ("batch", "start", "stop")

    def __init__(self, batch: BatchOutputs, start: int, stop: int) -> None:
        """Show the rows from `start` up to, not including, `stop`."""
        self.batch = batch
        self.start = start
        self.stop = stop

    def __getitem__(self, name: str) -> Array:
        """Return the rows of the output `name`, a view."""
        rows: Array = self.batch.arrays[name][self.start : self.stop]
        return rows

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.batch.arrays)

    def __len__(self) -> int:
        """How many outputs there are."""
        return len(self.batch.arrays)

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return self.stop - self.start

    def tobytes(self, name: str) -> bytes | memoryview:
        """Return the bytes of these rows of the output `name`, row-major."""
        whole, unit = self.batch.tobytes(name)
        if not unit:
            return bytes_or_view(self[name])
        return whole[self.start * unit : self.stop * unit]


class Parameters(NamedTuple):
    """How a request wants to be treated.

    Attributes:
        deadline: time after which the answer is worthless, in seconds on the server's clock; None
            takes the model's default.
        priority: level of the request: 1 is the highest level, the number of levels + 1 is bulk, 0
            is the model's default level. With 3 levels: 1, 2, 3, and 4 for bulk.
        key: secret of the client whose quota the rows are charged to; empty for a client without a
            key; None for a request of the server's own, which is charged to no quota.
        client: whose share of the CPU pool the request uses, such as an address; empty for all
            clients that nobody tells apart.
        route: text by which the version is chosen where versions share the requests of a model;
            equal texts go to one version; empty for any version.
        fresh: whether the model is to run in any case, whatever answers are kept.
        once: text by which the client repeats this request, and no other; empty without.
    """

    deadline: float | None = None
    priority: int = 0
    key: str | None = ""
    client: str = ""
    route: str = ""
    fresh: bool = False
    once: str = ""


NO_PARAMETERS = Parameters()


def checked_parameters(parameters: Any, bulk: int) -> Parameters:
    """Return `parameters` with numbers of Python's own types, for example of numpy's.

    Args:
        parameters: a `Parameters` that any program may have made.
        bulk: the priority of bulk requests at this model, which is the last one.

    Raises InvalidInput: the deadline is no number, or the model has no such priority.
    """
    deadline, priority, key, client, route, fresh, once = parameters
    try:
        deadline, priority = None if deadline is None else float(deadline), index(priority)
    except (TypeError, ValueError) as err:
        got = f"{brief(deadline, 100)} and {brief(priority, 100)}"
        raise InvalidInput(
            f"parameters: expected a deadline in seconds and a whole priority; got {got}"
        ) from err
    if deadline != deadline:  # no comparison with it would ever find the request late
        raise InvalidInput("parameters: expected a deadline in seconds; got NaN")
    if not 0 <= priority <= bulk:
        raise InvalidInput(
            f"priority: expected 1 (the highest) to {bulk - 1}, or {bulk}, bulk; got {priority}"
        )
    key = None if key is None else str(key)
    return Parameters(deadline, priority, key, str(client), str(route), bool(fresh), str(once))


def bytes_or_view(array: Array) -> bytes | memoryview:
    """Return the bytes of `array`, row-major: a view if they lie so in memory."""
    return array.data.cast("B") if array.flags.c_contiguous and array.size else array.tobytes()


@final
class InferenceRequest:
    """Rows for one model, already checked against the model's specification.

    Attributes:
        model: the model's name.
        version: the version that should answer; empty means the newest version that is ready.
        inputs: name to array of shape (rows, *row shape); read only.
        rows: length of the first axis of every input, at least 1.
        parameters: deadline, priority and key.
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
        """Let the request be copied and pickled."""
        return InferenceRequest, (
            self.model,
            self.version,
            dict(self.inputs),
            self.rows,
            self.parameters,
        )


StepTimes = tuple[str, float, float, int]
"""A step of a pipeline: its name, seconds in the queue and at work, and rows of the batch.

A step without a model has no queue and no batch: both are 0.
"""


@final
class InferenceResponse:
    """The answer to one request: the rows of the result that belong to that request.

    A request of more rows than fit into one batch is cut, and its parts run in several batches.

    Attributes:
        model: the model's name.
        version: the version that answered.
        outputs: name to array of shape (rows, *row shape).
        queue: seconds from arrival to the start of the batch; of the last batch, if cut.
        compute: seconds that the batch took on the worker, collation included; the sum over all
            batches, if cut.
        batch_size: rows of the batch; of the largest batch, if cut.
        origin: where the answer is from, if no row of this request has run: `hit` if it was kept,
            `joined` if an equal request ran at the same time, `replayed` if it is that of an
            earlier attempt; else empty.
        steps: the times of a pipeline's steps, in the order in which they have ended; empty for a
            model.
    """

    __slots__ = ("batch_size", "compute", "model", "origin", "outputs", "queue", "steps", "version")

    def __init__(
        self,
        model: str,
        version: str,
        outputs: Mapping[str, Array],
        queue: float,
        compute: float,
        batch_size: int,
        origin: str = "",
        steps: Sequence[StepTimes] = (),
    ) -> None:
        """Store the attributes."""
        self.model: Final = model
        self.version: Final = version
        self.outputs: Final = outputs
        self.queue: Final = queue
        self.compute: Final = compute
        self.batch_size: Final = batch_size
        self.origin: Final = origin
        self.steps: Final = steps

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the answer be copied and pickled, with its own rows alone."""
        # `outputs` may be a view of a whole batch, whose other rows are other clients'.
        outputs = {name: self.outputs[name] for name in self.outputs}
        return InferenceResponse, (
            self.model,
            self.version,
            outputs,
            self.queue,
            self.compute,
            self.batch_size,
            self.origin,
            self.steps,
        )


def with_deadline(request: InferenceRequest, deadline: float | None) -> InferenceRequest:
    """Return `request` with another deadline, a time in seconds; None takes the model's."""
    parameters = request.parameters._replace(deadline=deadline)
    return InferenceRequest(
        request.model, request.version, request.inputs, request.rows, parameters
    )


def with_outputs(
    response: InferenceResponse, outputs: Mapping[str, Array], origin: str
) -> InferenceResponse:
    """Return `response` with other `outputs` and another `origin`."""
    return InferenceResponse(
        response.model,
        response.version,
        outputs,
        response.queue,
        response.compute,
        response.batch_size,
        origin,
        response.steps,
    )


def nbytes_of(arrays: Mapping[str, Array]) -> int:
    """Return the bytes that all `arrays` occupy, the elements of object arrays included."""
    total = 0
    for array in arrays.values():
        total += array.nbytes  # of an object array these are the references alone
        if array.dtype.hasobject:
            if isinstance(arrays, SizedArrays):
                return arrays.nbytes
            # A list of them all is read in a third of the time that the array itself takes.
            total += bytes_of_elements(array.ravel().tolist())
    return total


def is_larger(arrays: Mapping[str, Array], nbytes: int) -> bool:
    """Return whether all `arrays` occupy at least `nbytes` bytes.

    Elements of object arrays are looked at only where their number does not decide.
    """
    least, has_objects = 0, False
    for array in arrays.values():  # a generator would take twice as long
        if array.dtype.hasobject:
            least += array.size * LEAST_ELEMENT_BYTES
            has_objects = True
        else:
            least += array.nbytes
    return least >= nbytes or (has_objects and nbytes_of(arrays) >= nbytes)
