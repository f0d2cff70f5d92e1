"""What decoding or `preprocess` made of inputs, kept for the next who sends them.

    bytes -> digest of them -> kept?  -> the arrays, which nobody can write into
                            -> no:    -> made on the CPU pool, and a copy is kept

Versions and models that make the same of equal bytes share one memory: two versions with the same
`preprocess`, or two models that take pictures in one form. They say so by an identity: of a hook
the digest of the files that it may read, of decoding the form of the inputs.

A memory lives as long as a version that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.cache import Cache
from batcher.core.element_sizes import about_nbytes, sized
from batcher.core.error_text import cut
from batcher.core.ragged import is_ragged
from batcher.core.spec import Array, ModelSpec
from batcher.errors import QueueFull
from batcher.serving.cache_metrics import CacheMetrics
from batcher.serving.caching.content import Content
from batcher.serving.caching.local_store import BEGIN_BYTES, LocalStore, let_go_of
from batcher.serving.caching.packing import is_quick, pack, unpack

MAX_LOOP_BYTES: Final = 64 << 10
"""Bytes that are hashed, or made arrays, on the loop: hashing them takes 0.1 to 0.3 ms."""

Arrays = Mapping[str, Array]
_log = Logger()

Run = Callable[[int, Callable[[], Any]], Deferred[Any]]
"""Runs a function that holds on to so many bytes on the CPU pool. Raises QueueFull."""


Make = Callable[[], Deferred[Any]]
"""Makes arrays."""

Keep = Callable[[bytes, LocalStore], Deferred[Any]]
"""Makes a `_Made`, for that memory, behind the bytes with which an entry begins."""


class InputStores:
    """The memories of all identities. Reactor thread."""

    def __init__(self, clock: IReactorTime) -> None:
        """Begin without any."""
        self._clock = clock
        self._stores: dict[bytes, tuple[LocalStore, set[object]]] = {}

    def take(self, identity: bytes, max_bytes: int, user: object) -> LocalStore:
        """Return the memory of `identity`, for `user`; a new one is bounded by `max_bytes`."""
        store, users = self._stores.setdefault(identity, (LocalStore(max_bytes), set()))
        users.add(user)
        return store

    def give_back(self, identity: bytes, user: object) -> None:
        """Hear that `user` needs the memory no more; nobody's memory is let go of."""
        store, users = self._stores[identity]
        users.discard(user)
        if not users:
            del self._stores[identity]
            let_go_of(store, self._clock)


class _Made(NamedTuple):
    """What was made of inputs.

    Attributes:
        arrays: name to array.
        packed: the same as it is kept; None where it is not kept.
    """

    arrays: Arrays
    packed: bytes | None


class KeptInputs:
    """What one version finds in such a memory. Reactor thread.

    Attributes:
        outcomes: how often something was found: `hit`, and `miss`.
    """

    def __init__(
        self, stores: InputStores, settings: Cache, clock: IReactorTime, outcomes: dict[str, int]
    ) -> None:
        """Keep as `settings` say, once `begin` was called."""
        self.outcomes = outcomes
        self._stores, self._seconds = stores, clock.seconds
        self._ttl, self._max_bytes = settings.ttl_s, settings.max_bytes
        self._identity = b""
        self._store: LocalStore | None = None
        self._closed = False

    def begin(self, identity: bytes) -> None:
        """Share the memory of `identity`; a new one is bounded as the settings say."""
        if not self._closed:
            self._identity = identity
            self._store = self._stores.take(identity, self._max_bytes, self)

    def close(self) -> None:
        """Keep nothing more, and find nothing."""
        self._closed = True
        if self._store is not None:
            self._store = None
            self._stores.give_back(self._identity, self)

    def made(
        self, nbytes: int, digest: Callable[[], bytes], make: Callable[[], Arrays], run: Run
    ) -> Deferred[Arrays]:
        """Return what fires with what `make` makes, or has made of equal inputs.

        `digest` tells the inputs, of `nbytes` bytes, from all others. It and `make` run on the CPU
        pool, by `run`. Fails as `make` does; fails or raises as `run` does.
        """

        def keep(begin: bytes, store: LocalStore) -> Deferred[_Made]:
            return run(nbytes, partial(_make, make, begin, store))

        return self._found(nbytes, digest, run, partial(run, nbytes, make), keep)

    def made_beside(
        self, nbytes: int, digest: Callable[[], bytes], make: Make, run: Run
    ) -> Deferred[Arrays]:
        """Do as `made` does, where `make` makes the arrays elsewhere than on the CPU pool."""

        def pack(arrays: Arrays, begin: bytes, store: LocalStore) -> Deferred[_Made] | _Made:
            try:
                return run(nbytes, partial(_make, lambda: arrays, begin, store))
            except QueueFull:
                return _Made(arrays, None)

        def keep(begin: bytes, store: LocalStore) -> Deferred[_Made]:
            return make().addCallback(pack, begin, store)

        try:
            return self._found(nbytes, digest, run, make, keep)
        except QueueFull:  # on the CPU pool, which `make` does not need
            return make()

    def _found(
        self, nbytes: int, digest: Callable[[], bytes], run: Run, make: Make, keep: Keep
    ) -> Deferred[Arrays]:
        if self._store is None:
            return make()
        hashed = succeed(digest()) if nbytes < MAX_LOOP_BYTES else run(nbytes, digest)
        return hashed.addCallback(self._find, run, make, keep)

    def _find(self, key: bytes, run: Run, make: Make, keep: Keep) -> Deferred[Arrays] | Arrays:
        now, store = self._seconds(), self._store
        if store is None:  # the version was let go of meanwhile
            return make()
        packed = store.get(key, now)
        if packed is None:
            self.outcomes["miss"] += 1
            return keep(LocalStore.begin(now + self._ttl), store).addCallback(self._keep, key)
        self.outcomes["hit"] += 1
        if len(packed) <= MAX_LOOP_BYTES or is_quick(packed, BEGIN_BYTES):
            return _arrays(packed)
        return run(len(packed), partial(_arrays, packed))

    def _keep(self, made: _Made, key: bytes) -> Arrays:
        if made.packed is not None and self._store is not None:
            self._store.put(key, made.packed)
        return made.arrays


def decoded_inputs(
    spec: ModelSpec,
    stores: InputStores,
    settings: Cache | None,
    clock: IReactorTime,
    metrics: CacheMetrics,
) -> KeptInputs | None:
    """Return what is kept of decoding inputs of `spec`; None where nothing is. Reactor thread."""
    if settings is None or not settings.inputs:
        return None
    kept = KeptInputs(stores, settings, clock, metrics.of(spec.name, spec.version).decoded)
    kept.begin(repr(spec.inputs).encode())
    return kept


def prepared_inputs(
    spec: ModelSpec,
    stores: InputStores,
    settings: Cache | None,
    clock: IReactorTime,
    metrics: CacheMetrics,
    content: Content | None,
) -> KeptInputs | None:
    """Return what is kept of `preprocess`, whose files are in `content`; None where nothing is.

    Reactor thread.
    """
    if settings is None or not settings.inputs or content is None:
        return None
    kept = KeptInputs(stores, settings, clock, metrics.of(spec.name, spec.version).prepared)
    content.read_hooks().addCallbacks(kept.begin, partial(_not_kept, f"{spec.name}/{spec.version}"))
    return kept


def _not_kept(title: str, failure: Failure) -> None:
    _log.warn(
        "model {title}: cache.inputs keeps nothing of preprocess: expected files that stay as they "
        "are while the model is loaded; got {why}",
        title=title,
        why=cut(failure.getErrorMessage(), 300),
    )


def _make(make: Callable[[], Arrays], begin: bytes, store: LocalStore) -> _Made:
    """Return what `make` makes, and a copy of it. Pool thread."""
    arrays = make()
    if not store.fits(about_nbytes(arrays)) or not all(map(_can_be_packed, arrays.values())):
        return _Made(arrays, None)
    return _Made(arrays, pack(arrays, begin))


def _arrays(packed: bytes) -> Arrays:
    """Return what is kept; nobody can write into it. Any thread."""
    return sized(unpack(packed, BEGIN_BYTES))


def _can_be_packed(array: Array) -> bool:
    """Return whether `array` comes back as it is: its dtype may be a library's own. Any thread."""
    if is_ragged(array):
        # A hook may have put together rows of any dtypes: of an empty text often floats.
        forms = {(row.dtype, row.ndim) for row in map(np.asarray, array)}
        return len(forms) == 1 and _can_be_packed(np.asarray(array[0]))
    return array.dtype.hasobject or np.dtype(array.dtype.str) == array.dtype
