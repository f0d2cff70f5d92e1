"""Answers that the servers around one Redis give each other.

    request -> the version's content known, and Redis to be asked?  -> no: go_on
            -> what stands under its key, checked                   -> the answer
            -> nothing, nothing in time, or nothing true            -> go_on

The key names model and version, and is a digest of the inputs, of the content of the version's
files and of what else decides what is kept. So servers with other files under the same number share
nothing, and a version that is loaded anew with other files begins with nothing.

Until the files have been read, which takes a second for each gigabyte, and where they were changed
while they were loaded, the server answers by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from math import prod
from time import time
from typing import Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.cache import Cache
from batcher.core.error_text import cut
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec, TensorSpec, has_rows
from batcher.errors import QueueFull
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.caching.packing import unpack
from batcher.serving.caching.redis.sealing import BEGIN_BYTES, FORMAT, Sealing
from batcher.serving.caching.redis.store import MAX_VALUE_BYTES, RedisStore
from batcher.serving.stages.stage import GoOn

Result = TypeVar("Result")

MAX_HEAD_BYTES: Final = 16 << 10
"""Bytes of names and shapes in a value: some hundred outputs. Heads are remembered."""

MAX_LOOP_BYTES: Final = 64 << 10
"""Bytes that are checked on the loop."""

KEY_BYTES: Final = 16
_HEAD_LENGTH: Final = 4
_log = Logger()


class Found(NamedTuple):
    """An answer that another server has kept.

    Attributes:
        outputs: name to array; nobody can write into them.
        packed: the outputs as bytes.
        left_s: seconds for which they count.
    """

    outputs: dict[str, Array]
    packed: bytes
    left_s: float


Run = Callable[[int, Callable[[], Found], Parameters], Deferred[Found]]
"""Runs a function that holds on to so many bytes on the CPU pool; raises QueueFull."""

Keep = Callable[[bytes, bytes, float], object]
"""Keeps, by a key, an answer as bytes in this server for so many seconds."""


class RedisAnswers:
    """The answers of one loaded version. Reactor thread, but for `sealed`."""

    def __init__(
        self,
        settings: Cache,
        rule: tuple[object, ...],
        spec: ModelSpec,
        content: Deferred[bytes],
        store: RedisStore,
        counts: CacheCounts,
        wall_s: Callable[[], float] = time,
    ) -> None:
        """Share answers of the model `spec` through `store`, once its `content` is known.

        `rule` says which answers are kept, besides; servers with other rules share nothing.
        """
        self._spec, self._names = spec, (spec.name, spec.version)
        self._store, self._counts, self._looks = store, counts, counts.redis.looks
        self._sealing, self._ttl, self._wall_s = Sealing(settings.secret), settings.ttl_s, wall_s
        # Settings may say what a file's inputs and outputs are called: not all is in the files.
        of_all = repr((FORMAT, *rule, spec.inputs, spec.outputs)).encode()
        self._rule = blake2b(of_all, digest_size=KEY_BYTES).digest()
        self._prefix = f"batcher/{spec.name}/{spec.version}/".encode()
        self._content: bytes | None = None
        content.addCallbacks(self._known, self._unknown)

    def answer(
        self, key: bytes, request: InferenceRequest, go_on: GoOn, run: Run, keep: Keep
    ) -> Deferred[InferenceResponse]:
        """Answer `request`, whose digest is `key`; raises as `go_on` does."""
        content = self._content
        place = None if content is None else self._place(content, key)
        looked = None if place is None else self._store.look(place, partial(self._read, place))
        if looked is None or place is None:
            return self._go_on(request, go_on)
        found: Deferred[Found | None] = looked.addCallback(
            self._checked, place, request.parameters, run
        )
        return found.addCallback(self._answered, key, request, go_on, keep)

    def sealed(self, key: bytes, packed: bytes) -> bytes | None:
        """Return what Redis is to hold of an answer; None where it is none for it. Any thread."""
        content = self._content
        if content is None or len(packed) + BEGIN_BYTES > MAX_VALUE_BYTES:
            return None
        if int.from_bytes(packed[:_HEAD_LENGTH], "little") > MAX_HEAD_BYTES:
            return None
        return self._sealing.seal(self._place(content, key), packed, self._wall_s() + self._ttl)

    def put(self, key: bytes, value: bytes) -> None:
        """Send what `sealed` has returned."""
        if self._content is not None:
            self._store.put(self._place(self._content, key), value, self._ttl)

    def close(self) -> None:
        """Ask no more."""
        self._content = None
        self._store.close()

    def _place(self, content: bytes, key: bytes) -> bytes:
        """Return the key in Redis. Any thread."""
        digest = blake2b(self._rule + key, key=content, digest_size=KEY_BYTES)
        return self._prefix + digest.hexdigest().encode()

    def _known(self, content: bytes) -> None:
        self._content = content

    def _unknown(self, failure: Failure) -> None:
        _log.warn(
            "model {title}: cache.store shares no answers: expected files that stay as they are "
            "while the model is loaded; got {why}",
            title="/".join(self._names),
            why=cut(failure.getErrorMessage(), 300),
        )

    def _checked(
        self, value: bytes | None, place: bytes, parameters: Parameters, run: Run
    ) -> Deferred[Found | None] | Found | None:
        """Return the answer that `value` holds; None if it holds none."""
        if value == b"":
            self._looks["miss"] += 1
        if not value:
            return None
        if len(value) > MAX_LOOP_BYTES:
            try:
                reading = run(len(value), partial(self._read, place, value), parameters)
            except QueueFull:
                return None
            return reading.addErrback(self._wrong)
        try:
            return self._read(place, value)
        except ValueError:
            self._wrong(Failure())
            return None

    def _wrong(self, failure: Failure) -> None:
        failure.trap(ValueError)
        self._store.wrong(str(failure.value))

    def _read(self, place: bytes, value: bytes) -> Found:
        """Return the answer in `value`. Raises ValueError: there is none. Any thread."""
        left_s = min(self._sealing.open(place, value) - self._wall_s(), self._ttl)
        packed = value[BEGIN_BYTES:]
        if int.from_bytes(packed[:_HEAD_LENGTH], "little") > MAX_HEAD_BYTES:
            raise ValueError("of too many outputs")
        try:
            outputs = unpack(packed)
        except Exception as err:  # without a secret anybody can write what has a true digest
            raise ValueError("of another form") from err
        if not self._fits(outputs):
            raise ValueError("of other outputs")
        return Found(outputs, packed, left_s)

    def _fits(self, outputs: Mapping[str, Array]) -> bool:
        """Return whether the model could have given `outputs`. Any thread."""
        promised = self._spec.outputs
        if {tensor.name for tensor in promised} != set(outputs):
            return False
        first = outputs[promised[0].name]
        rows = len(first) if first.ndim else 0
        return rows > 0 and all(
            has_rows(outputs[each.name], rows) and _fit(each, outputs[each.name])
            for each in promised
        )

    def _answered(
        self, found: Found | None, key: bytes, request: InferenceRequest, go_on: GoOn, keep: Keep
    ) -> Deferred[InferenceResponse] | InferenceResponse:
        # So written, NaN is no time that is left.
        if found is None or not found.left_s > 0:
            return self._go_on(request, go_on)
        self._looks["hit"] += 1
        self._counts.outcomes["hit"] += 1
        keep(key, found.packed, found.left_s)
        return InferenceResponse(*self._names, found.outputs, 0.0, 0.0, 0, "hit")

    def _go_on(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        self._counts.outcomes["miss"] += 1
        return go_on(request)


def _fit(tensor: TensorSpec, array: Array) -> bool:
    """Return whether `array` may be the output `tensor`. Any thread."""
    if not is_ragged(array):
        return tensor.admits(array) and _lists(array) <= MAX_VALUE_BYTES
    if not (tensor.is_ragged or tensor.unpads):
        return False
    rows = [row[None] for row in array]
    return all(map(tensor.admits, rows)) and sum(map(_lists, rows)) <= MAX_VALUE_BYTES


def _lists(array: Array) -> int:
    """Return how many lists an array without elements is; they take no bytes in a value."""
    return prod(array.shape[: array.shape.index(0)]) if not array.size else 0
