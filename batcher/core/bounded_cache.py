"""What was worked out from bytes of clients, kept for the next request in a bounded memory.

Clients of one kind send the same thing again and again: the same head, the same `Accept`. What
follows from it is worked out once. But a client can also make up a new one for each request. So a
cache counts bytes, not entries: 1,024 heads of 30 KB would stay as 30 MB for ever.

Whoever puts an entry in says how many bytes it takes, by a formula that is true of the worst entry;
a test fills each cache with the worst and measures. When there is no room, everything is forgotten.
What clients really repeat is back at once, and a hit costs no more than a look-up in a dictionary.

Refused alternative: to forget the oldest entry. Each hit would have to move its entry, which costs
every request more than the rare misses do.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

LARGEST_PART = 8
"""An entry that takes more than an eighth of the room is not kept: it would drive out too much."""


class BoundedCache(Generic[Key, Value]):
    """Values by their keys, in at most `max_bytes` bytes. One thread.

    Attributes:
        kept: what is there; for look-ups alone.
        nbytes: bytes that it takes.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes."""
        self.kept: dict[Key, Value] = {}
        self.nbytes = 0
        self._max_bytes = max_bytes

    def put(self, key: Key, value: Value, nbytes: int) -> None:
        """Keep `value` by `key`; both together take at most `nbytes` bytes."""
        if nbytes * LARGEST_PART > self._max_bytes:
            return
        if self.nbytes + nbytes > self._max_bytes:
            self.clear()
        self.kept[key] = value
        self.nbytes += nbytes

    def clear(self) -> None:
        """Forget everything."""
        self.kept.clear()
        self.nbytes = 0
