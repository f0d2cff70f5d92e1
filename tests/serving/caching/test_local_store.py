"""Bytes by key, within a bound of bytes."""

from __future__ import annotations

import tracemalloc
from hashlib import blake2b

import pytest

from batcher.serving.caching.local_store import (
    BEGIN_BYTES,
    ENTRY_BYTES,
    LARGEST_PART,
    TABLE_BYTES,
    LocalStore,
)


def key(number: int) -> bytes:
    return blake2b(b"%d" % number, digest_size=16).digest()


def size(content: int) -> int:
    return 16 + BEGIN_BYTES + content + ENTRY_BYTES


def put(store: LocalStore, number: int, content: bytes = b"", until: float = 10.0) -> None:
    store.put(key(number), LocalStore.begin(until) + content)
    store.check_invariants()


def there(store: LocalStore, count: int, now: float = 0.0) -> list[int]:
    return [number for number in range(count) if store.get(key(number), now) is not None]


def test_a_value_is_found_until_its_time_is_over() -> None:
    store = LocalStore(1 << 20)
    put(store, 1, b"one", until=5.0)
    found = store.get(key(1), 4.9)
    assert found is not None
    assert found[BEGIN_BYTES:] == b"one"
    assert store.get(key(1), 5.0) is None
    assert (len(store), store.nbytes) == (0, 0)


def test_what_was_used_longest_ago_goes_first() -> None:
    store = LocalStore(10 * size(0))
    for number in range(10):
        put(store, number)
    assert store.get(key(0), 0.0) is not None
    put(store, 10)
    assert there(store, 11) == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert store.evicted == 1


def test_a_value_that_is_put_again_takes_the_place_of_the_old_one() -> None:
    store = LocalStore(1 << 20)
    put(store, 1, b"one")
    put(store, 1, b"three")
    assert (len(store), store.nbytes) == (1, size(5))


def test_a_value_that_would_drive_out_too_much_is_not_kept() -> None:
    store = LocalStore(LARGEST_PART * size(100))
    put(store, 1)
    put(store, 2, bytes(101 + 16))
    assert there(store, 3) == [1]
    put(store, 2, bytes(90))
    assert there(store, 3) == [1, 2]


def test_many_tables_hold_as_much_as_one() -> None:
    content = 1000
    store = LocalStore(8 * TABLE_BYTES)
    count = 8 * TABLE_BYTES // size(content)
    for number in range(count + 1000):
        store.put(key(number), LocalStore.begin(10.0) + bytes(content))
    store.check_invariants()
    assert len(store) == count
    assert store.evicted == 1000
    # The oldest of one table are about the oldest of all.
    kept = there(store, count + 1000)
    assert sum(number >= 2000 for number in kept) > 0.95 * (count - 1000)


def test_what_is_let_go_of_goes_by_tables() -> None:
    store = LocalStore(4 * TABLE_BYTES)
    for number in range(100):
        put(store, number)
    turns = 1
    while store.let_go():
        turns += 1
    assert (turns, len(store), store.nbytes) == (4, 0, 0)


@pytest.mark.parametrize("content", [0, 72, 600])
def test_an_entry_takes_no_more_than_it_is_counted_with(content: int) -> None:
    store = LocalStore(1 << 30)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(30_000):
            store.put(key(number), LocalStore.begin(1.0) + bytes(content))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * store.nbytes < taken <= store.nbytes


def test_large_values_that_stand_alone_in_their_tables_go_as_well() -> None:
    store = LocalStore(16 * TABLE_BYTES)
    value = LocalStore.begin(10.0) + bytes(store_room(store))
    numbers: dict[int, int] = {}  # one for each table: there is room for seven
    for number in range(1000):
        numbers.setdefault(int.from_bytes(key(number)[:4], "little") % 16, number)
    for number in numbers.values():
        store.put(key(number), value)
        store.check_invariants()
    assert (len(store), store.evicted) == (7, 9)


def store_room(store: LocalStore) -> int:
    """Return the bytes of the largest value that `store` keeps, without its time."""
    return next(size for size in range(TABLE_BYTES * 2, 0, -1) if store.fits(size)) - BEGIN_BYTES
