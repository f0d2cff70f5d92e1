"""The stage by which a client may repeat a request without its running twice.

A client whose connection breaks does not know whether its request has run. It names each request by
an `Idempotency-Key` of its own, and sends the request again under the same key:

    key known, the request runs      -> the repetition waits for its answer
    key known, the request answered  -> the answer that was kept, the same to the last bit
    key known, other inputs          -> KeyReused: the key is that of another request
    key unknown                      -> the request runs, and its answer is kept for a time

A request with a key runs on when its client has left, until its deadline: its answer is what the
repetition asks for. Errors are not kept: what has failed runs again.

A key counts together with the API key, so no client gets the answer of another. What is kept is
bounded in bytes; what was used longest ago goes first, and its request would run again.

Refused: to compare bodies as they were sent. The inputs are compared as they were decoded, so a
repetition may be written in another way, and what it asks for is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import ClassVar, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.core.digests import DIGEST_BYTES, Digests
from batcher.core.element_sizes import about_nbytes
from batcher.core.request import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    is_larger,
    with_outputs,
)
from batcher.errors import KeyReused, Unavailable
from batcher.serving.caching.flights import Flight, Flights
from batcher.serving.caching.local_store import BEGIN_BYTES, LocalStore
from batcher.serving.caching.packing import is_quick, pack, read_only, unpack
from batcher.serving.stages.cache import MAX_LOOP_BYTES
from batcher.serving.stages.stage import GoOn, Stage
from batcher.workers.pool import CpuPool

Result = TypeVar("Result")

POOL_S = 30.0
"""Seconds that hashing may take, the wait for its turn included, where a request has no deadline:
its model's begins with its row.
"""

_VERSION_BYTES = 24
"""Bytes for the number of a version, which has at most 19 digits; a multiple of 8."""

_VERSION_START = BEGIN_BYTES + DIGEST_BYTES
_OUTPUTS_START = _VERSION_START + _VERSION_BYTES


class OnceStage(Stage):
    """Answers repetitions of requests. Reactor thread."""

    reads_key: ClassVar[bool] = True
    reads_client: ClassVar[bool] = True
    reads_once: ClassVar[bool] = True
    _number = 0

    def __init__(self, ttl: float, max_bytes: int, pool: CpuPool, clock: IReactorTime) -> None:
        """Keep answers for `ttl` seconds in at most `max_bytes` bytes.

        `pool` runs what is too slow for the loop.
        """
        self._ttl = ttl
        self._pool = pool
        self._seconds = clock.seconds
        self._store = LocalStore(max_bytes)
        # The row has its model's deadline where the request names none, so it ends.
        self._flights = Flights(clock, lambda: inf, 1, self._answered, True, "replayed")
        # Requests that were hashed on the pool, or still are, by number, the first one first.
        self._hashing: dict[int, None] = {}
        self._drained: list[tuple[int, Deferred[None]]] = []
        self._packing: dict[bytes, tuple[bytes, InferenceResponse]] = {}

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Answer `request` if it is a repetition, else have `go_on` answer, and keep that.

        Raises:
            KeyReused: its key is that of a request with other inputs.
            QueueFull: its inputs are large, and the pool has no room to hash them.
        """
        if not request.parameters.once:
            return go_on(request)
        hashing = partial(Digests("once", request.model).of, request.inputs)
        if not is_larger(request.inputs, MAX_LOOP_BYTES):
            return self._find(hashing(), request, go_on)
        hashed = self._run(about_nbytes(request.inputs), hashing, request.parameters)
        self._number += 1
        self._hashing[self._number] = None
        return hashed.addCallback(self._find, request, go_on).addBoth(self._ended, self._number)

    def drain(self) -> Deferred[None]:
        """Fire when no request that has been hashed on the pool until now is under way any more.

        Those that come later are another version's: under load there is always one of these.
        """
        drained: Deferred[None] = Deferred()
        self._drained.append((self._number, drained))
        self._release()
        return drained

    def _ended(self, result: Result, number: int) -> Result:
        del self._hashing[number]
        self._release()
        return result

    def _release(self) -> None:
        first = next(iter(self._hashing), self._number + 1)
        while self._drained and self._drained[0][0] < first:
            self._drained.pop(0)[1].callback(None)

    def _run(
        self, nbytes: int, function: Callable[[], Result], parameters: Parameters
    ) -> Deferred[Result]:
        deadline = parameters.deadline
        if deadline is None:
            deadline = self._seconds() + POOL_S
        return self._pool.run(nbytes, deadline, function, parameters.client)

    def _find(
        self, mark: bytes, request: InferenceRequest, go_on: GoOn
    ) -> Deferred[InferenceResponse]:
        parameters = request.parameters
        key = Digests(parameters.key or "", parameters.once).of({})
        flight = self._flights.find(key, parameters)
        if flight is not None:
            _check(mark, flight.mark)
            return self._flights.join(flight, parameters)
        packing = self._packing.get(key)
        if packing is not None:
            _check(mark, packing[0])
            return succeed(packing[1])
        kept = self._store.get(key, self._seconds())
        if kept is None:
            return self._flights.lead(key, _without_key(request), go_on, mark)
        _check(mark, kept[BEGIN_BYTES:_VERSION_START])
        return self._replay(kept, request)

    def _replay(self, kept: bytes, request: InferenceRequest) -> Deferred[InferenceResponse]:
        if len(kept) <= MAX_LOOP_BYTES or is_quick(kept, _OUTPUTS_START):
            return succeed(_answer_in(kept, request.model))
        unpacking = partial(_answer_in, kept, request.model)
        return self._run(len(kept), unpacking, request.parameters)

    def _answered(self, flight: Flight, response: InferenceResponse) -> InferenceResponse:
        """Keep a copy of `response`; return what its clients get."""
        version = response.version.encode()[:_VERSION_BYTES].ljust(_VERSION_BYTES)
        begin = LocalStore.begin(self._seconds() + self._ttl) + flight.mark + version
        if not is_larger(response.outputs, MAX_LOOP_BYTES):
            self._store.put(flight.key, pack(response.outputs, begin))
            return response
        nbytes = about_nbytes(response.outputs)
        shared = read_only(response.outputs)
        if self._store.fits(nbytes):
            try:
                packed = self._pool.run(nbytes, inf, partial(pack, shared, begin))
            except Unavailable:
                return response
            # A repetition that comes meanwhile gets this answer.
            replayed = with_outputs(response, shared, "replayed")
            self._packing[flight.key] = flight.mark, replayed
            packed.addCallbacks(self._keep, self._drop, (flight.key,), errbackArgs=(flight.key,))
        return with_outputs(response, shared, response.origin)

    def _keep(self, packed: bytes, key: bytes) -> None:
        del self._packing[key]
        self._store.put(key, packed)

    def _drop(self, failure: Failure, key: bytes) -> None:
        """Keep nothing: the server ends, or there is no memory for a copy."""
        del self._packing[key]


def _without_key(request: InferenceRequest) -> InferenceRequest:
    """Return `request` without its key: the models of a pipeline get other inputs."""
    parameters = request.parameters._replace(once="")
    return InferenceRequest(
        request.model, request.version, request.inputs, request.rows, parameters
    )


def _answer_in(kept: bytes, model: str) -> InferenceResponse:
    """Return the answer in `kept`. Any thread."""
    version = kept[_VERSION_START:_OUTPUTS_START].rstrip().decode()
    outputs = unpack(kept, _OUTPUTS_START)
    return InferenceResponse(model, version, outputs, 0.0, 0.0, 0, "replayed")


def _check(mark: bytes, known: bytes) -> None:
    """Raise KeyReused if the request with `mark` is not the one that is `known`."""
    if mark != known:
        raise KeyReused(
            "Idempotency-Key: expected a key of its own for each request; got that of a request "
            "with other inputs, or for another model"
        )
