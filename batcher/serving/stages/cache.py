"""The stage that answers from memory what the model has answered before.

    request -> digest of its inputs -> kept?     -> the answer, as it was
                                    -> running?  -> the answer of the row that runs
                                    -> go_on     -> the answer, a copy of which is kept

The stage belongs to one loaded version, and so does what it keeps: a version that is loaded anew
begins with nothing. So the key is made of no more than model, version and inputs. A version may
share its answers with other servers (`caching/redis/`): then the leader of equal requests asks
there first, and what the model has answered goes there as well. All outputs are
kept; which of them a client gets, and in which format, is decided when an answer is written.
Deadline, level and key of a request change nothing in its answer.

Only answers are kept, never errors. What is kept is a copy that nobody can change (`packing.py`).

Nothing here is slow for the loop: what takes longer than some hundred microseconds to hash, to pack
or to unpack goes to the CPU pool. Where the pool has no room, a request goes on without the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Final, TypeVar, final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.cache import Cache
from batcher.core.digests import Digests
from batcher.core.element_sizes import about_nbytes
from batcher.core.request import (
    NO_PARAMETERS,
    InferenceRequest,
    InferenceResponse,
    Parameters,
    is_larger,
    with_deadline,
    with_outputs,
)
from batcher.core.spec import Array, ModelSpec
from batcher.core.waiters import Waiters
from batcher.errors import BatcherError, QueueFull, Unavailable
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.caching.flights import Flight, Flights
from batcher.serving.caching.local_store import BEGIN_BYTES, LocalStore, let_go_of
from batcher.serving.caching.packing import is_quick, pack, read_only, unpack
from batcher.serving.caching.redis.answers import RedisAnswers
from batcher.serving.caching.scores import BestScores
from batcher.serving.stages.stage import GoOn, Stage
from batcher.workers.pool import CpuPool

Result = TypeVar("Result")

MAX_LOOP_BYTES: Final = 64 << 10
"""Bytes that are hashed, packed or unpacked on the loop: hashing them takes 0.1 to 0.3 ms."""

_NO_SCORES = "model {title}: cache.min_score keeps no answer: expected an output of floats"
_log = Logger()


@final
class _Packed:
    """An answer as bytes.

    Attributes:
        kept: as it is kept here.
        sealed: as it is sent to a Redis; None where it is sent to none.
    """

    __slots__ = ("kept", "sealed")

    def __init__(self, kept: bytes, sealed: bytes | None) -> None:
        """Store the attributes."""
        self.kept: Final = kept
        self.sealed: Final = sealed


class CacheStage(Stage):
    """Keeps answers of one loaded version. Reactor thread."""

    reads_client: ClassVar[bool] = True
    reads_freshness: ClassVar[bool] = True
    _closed = False
    _hashing = 0
    """Requests that were hashed on the pool, or still are."""

    def __init__(
        self,
        settings: Cache,
        spec: ModelSpec,
        default_level: int,
        deadline: Callable[[], float],
        pool: CpuPool,
        clock: IReactorTime,
        counts: CacheCounts,
        redis: RedisAnswers | None = None,
    ) -> None:
        """Keep answers of the model `spec` as `settings` say, and count in `counts`.

        A request without its own has `default_level` and `deadline`; `redis` has others' answers.
        """
        self._ttl, self._min_score = settings.ttl_s, settings.min_score
        self._names, self._digests = (spec.name, spec.version), Digests(spec.name, spec.version)
        self._scores, self._seconds = BestScores(spec), clock.seconds
        self._deadline, self._pool, self._clock = deadline, pool, clock
        self._counts, self._store = counts, LocalStore(settings.max_bytes)
        self._flights = Flights(clock, deadline, default_level, self._answered)
        self._redis, self._idle = redis, Waiters()
        counts.begin(self._store)
        if settings.min_score is not None and not self._scores.output:
            _log.warn(_NO_SCORES, title="/".join(self._names))

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Answer `request` from what is kept, or have `go_on` answer; raises as that does."""
        if request.parameters.fresh:
            self._counts.outcomes["skipped"] += 1
            return go_on(request)
        if is_larger(request.inputs, MAX_LOOP_BYTES):
            return self._infer_large(request, go_on)
        return self._find(self._digests.of(request.inputs), request, go_on)

    def drain(self) -> Deferred[None]:
        """Fire when no request that was hashed on the pool, and no row, is under way any more."""
        idle = self._idle.wait()
        self._release_if_idle()
        return idle.addCallback(lambda _: self._flights.landed())

    def close(self) -> None:
        """Forget what is kept, a part at each turn of the loop."""
        self._closed = True
        self._counts.end(self._store)
        if self._redis is not None:
            self._redis.close()
        let_go_of(self._store, self._clock)

    def _infer_large(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Answer a request whose inputs are hashed on the pool."""
        deadline = request.parameters.deadline
        request = with_deadline(request, self._deadline() if deadline is None else deadline)
        hashing = partial(self._digests.of, request.inputs)
        try:
            hashed = self._run(about_nbytes(request.inputs), hashing, request.parameters)
        except QueueFull:
            self._counts.outcomes["skipped"] += 1
            return go_on(request)
        self._hashing += 1
        return hashed.addCallback(self._find, request, go_on).addBoth(self._ended)

    def _run(
        self, nbytes: int, function: Callable[[], Result], parameters: Parameters
    ) -> Deferred[Result]:
        deadline = self._deadline() if parameters.deadline is None else parameters.deadline
        return self._pool.run(nbytes, deadline, function, parameters.client)

    def _ended(self, result: Result) -> Result:
        self._hashing -= 1
        self._release_if_idle()
        return result

    def _release_if_idle(self) -> None:
        if not self._hashing:
            self._idle.release()

    def _find(
        self, key: bytes, request: InferenceRequest, go_on: GoOn
    ) -> Deferred[InferenceResponse]:
        if self._closed:  # while it was hashed, the version was cut short
            return go_on(request)
        packed = self._store.get(key, self._seconds())
        if packed is not None:
            return self._hit(packed, request, go_on)
        flight = self._flights.find(key, request.parameters)
        if flight is not None:
            self._counts.outcomes["joined"] += 1
            return self._flights.join(flight, request.parameters)
        if self._redis is not None:
            go_on = partial(self._ask_redis, self._redis, key, go_on)
        else:
            self._counts.outcomes["miss"] += 1
        return self._flights.lead(key, request, go_on)

    def _ask_redis(
        self, redis: RedisAnswers, key: bytes, go_on: GoOn, request: InferenceRequest
    ) -> Deferred[InferenceResponse]:
        """Answer the leader of equal requests from Redis, or have `go_on` answer."""
        return redis.answer(key, request, go_on, self._run, self._keep_found)

    def _hit(
        self, packed: bytes, request: InferenceRequest, go_on: GoOn
    ) -> Deferred[InferenceResponse]:
        if len(packed) <= MAX_LOOP_BYTES or is_quick(packed, BEGIN_BYTES):
            self._counts.outcomes["hit"] += 1
            return succeed(self._unpacked(packed))
        try:
            unpacked = self._run(len(packed), partial(self._unpacked, packed), request.parameters)
        except QueueFull:
            self._counts.outcomes["skipped"] += 1
            return go_on(request)
        self._counts.outcomes["hit"] += 1
        return unpacked

    def _unpacked(self, packed: bytes) -> InferenceResponse:
        """Return the answer in `packed`. Any thread."""
        return InferenceResponse(*self._names, unpack(packed, BEGIN_BYTES), 0.0, 0.0, 0, "hit")

    def _answered(self, flight: Flight, response: InferenceResponse) -> InferenceResponse:
        """Keep a copy of `response`, if it is to be kept; return what its clients get."""
        if response.origin:  # another server has kept it, and so has this one by now
            return response
        until = self._seconds() + self._ttl
        outputs = response.outputs
        if not is_larger(outputs, MAX_LOOP_BYTES):
            self._keep(self._packed(flight.key, outputs, until), flight.key)
            return response
        nbytes = about_nbytes(outputs)
        if not self._store.fits(nbytes):
            self._counts.left_out["large"] += 1
            return response
        try:
            packing = partial(self._packed, flight.key, outputs, until)
            packed = self._run(nbytes, packing, NO_PARAMETERS)
        except Unavailable:
            self._counts.left_out["busy"] += 1
            return response
        packed.addCallbacks(self._keep, self._not_packed, (flight.key,))
        # Whoever gets the answer meanwhile must not change what is being packed.
        return with_outputs(response, read_only(outputs), "")

    def _packed(self, key: bytes, outputs: Mapping[str, Array], until: float) -> _Packed | None:
        """Return `outputs` as bytes; None where the model is not sure enough. Any thread."""
        # So written, NaN is no score that is high enough.
        if self._min_score is not None and not self._scores.least(outputs) >= self._min_score:
            return None
        kept = pack(outputs, LocalStore.begin(until))
        redis = self._redis
        return _Packed(kept, None if redis is None else redis.sealed(key, kept[BEGIN_BYTES:]))

    def _not_packed(self, failure: Failure) -> None:
        self._counts.left_out["busy"] += 1
        if not failure.check(BatcherError):
            _log.failure(
                "model {title}: an answer was not kept", failure, title="/".join(self._names)
            )

    def _keep(self, packed: _Packed | None, key: bytes) -> None:
        if packed is None:
            self._counts.left_out["score"] += 1
        elif not self._store.fits(len(packed.kept)):
            self._counts.left_out["large"] += 1
        elif not self._closed:
            self._store.put(key, packed.kept)
            if self._redis is not None and packed.sealed is not None:
                self._redis.put(key, packed.sealed)

    def _keep_found(self, key: bytes, packed: bytes, left_s: float) -> None:
        """Keep here what another server has kept, for the rest of its time."""
        if not self._closed:
            self._store.put(key, LocalStore.begin(self._seconds() + left_s) + packed)
