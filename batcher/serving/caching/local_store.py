"""Bytes by key in the memory of this process, within a bound of bytes.

What was used longest ago goes first, and nothing is found once its time is over. An entry is
counted with all that it takes: key, value, and its place in the tables (`ENTRY_BYTES`, measured;
a test measures again).

The entries of a large store stand in several tables. A table that grows is copied as a whole: with
a million entries that would hold up the loop for tens of milliseconds, with 16,000 for less than
one. Keys are digests, so the tables are filled alike, and the oldest entry of one is about as old
as the oldest of all.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct
from typing import Final

from twisted.internet.interfaces import IReactorTime

ENTRY_BYTES: Final = 208
"""Bytes of an entry besides the content of its key and value: two objects of `bytes`, 33 each and
rounded up, a node in the order, 48, and its place in a table, up to 60 just after it has grown.
"""

TABLE_BYTES: Final = 4 << 20
"""Bytes of the entries of one table: at most some 14,000, whose copying takes half a millisecond.
"""

MAX_TABLES: Final = 1024

LARGEST_PART: Final = 8
"""An entry that takes more than an eighth of the room is not kept: it would drive out too much."""

_TIME: Final = Struct("<d")
BEGIN_BYTES: Final = 8
"""Where the value itself begins in what `get` returns."""


class LocalStore:
    """Values by key, each for a time. Time is an argument. Reactor thread.

    Attributes:
        nbytes: bytes that the entries take.
        evicted: entries that had to go for others.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes."""
        count = min(max(max_bytes // TABLE_BYTES, 1), MAX_TABLES)
        self._tables: list[OrderedDict[bytes, bytes]] = [OrderedDict() for _ in range(count)]
        self._max_bytes = max_bytes
        self._turn = 0
        self.nbytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        """How many entries there are."""
        return sum(map(len, self._tables))

    @staticmethod
    def begin(until: float) -> bytes:
        """Return what a value has in front that is to be found until the time `until`."""
        return _TIME.pack(until)

    def fits(self, nbytes: int) -> bool:
        """Return whether a value of `nbytes` bytes may be kept."""
        return (nbytes + ENTRY_BYTES) * LARGEST_PART <= self._max_bytes

    def get(self, key: bytes, now: float) -> bytes | None:
        """Return the value of `key`, behind BEGIN_BYTES of its own; None if there is none."""
        table = self._table(key)
        value = table.get(key)
        if value is None:
            return None
        if _TIME.unpack_from(value)[0] <= now:
            self._remove(table, key)
            return None
        table.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep `value`, which has `begin` in front, by `key`, a digest."""
        if not self.fits(len(value)):
            return
        own = table = self._table(key)
        if key in table:
            self._remove(table, key)
        table[key] = value
        self.nbytes += len(key) + len(value) + ENTRY_BYTES
        while self.nbytes > self._max_bytes:
            if len(table) <= (table is own):  # the new one is not to go
                self._turn = (self._turn + 1) % len(self._tables)
                table = self._tables[self._turn]
                continue
            self._remove(table, next(iter(table)))
            self.evicted += 1

    def discard(self, key: bytes) -> None:
        """Forget `key`, if it is there."""
        table = self._table(key)
        if key in table:
            self._remove(table, key)

    def let_go(self) -> bool:
        """Forget one table of a store that is used no more; return whether there are others.

        All at once, a million entries would hold up the loop for a tenth of a second.
        """
        table = self._tables.pop()
        self.nbytes -= sum([len(key) + len(value) + ENTRY_BYTES for key, value in table.items()])
        return bool(self._tables)

    def check_invariants(self) -> None:
        """Assert that the bytes are those of the entries, and within the bound; for tests."""
        entries = [entry for table in self._tables for entry in table.items()]
        assert self.nbytes == sum(len(key) + len(value) + ENTRY_BYTES for key, value in entries)
        assert self.nbytes <= self._max_bytes

    def _table(self, key: bytes) -> OrderedDict[bytes, bytes]:
        return self._tables[int.from_bytes(key[:4], "little") % len(self._tables)]

    def _remove(self, table: OrderedDict[bytes, bytes], key: bytes) -> None:
        self.nbytes -= len(key) + len(table.pop(key)) + ENTRY_BYTES


def let_go_of(store: LocalStore, clock: IReactorTime) -> None:
    """Forget what `store` keeps, a part at each turn of the loop. Reactor thread."""
    if store.let_go():
        clock.callLater(0, let_go_of, store, clock)
