"""A cache that counts bytes: what it keeps, and what it forgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batcher.core.bounded_cache import BoundedCache


def test_what_was_put_in_is_found() -> None:
    cache: BoundedCache[str, int] = BoundedCache(1000)
    cache.put("a", 1, 100)
    assert cache.kept.get("a") == 1
    assert cache.kept.get("b") is None


def test_without_room_everything_before_is_forgotten() -> None:
    cache: BoundedCache[int, int] = BoundedCache(1000)
    for number in range(11):
        cache.put(number, number, 100)
    assert cache.kept == {10: 10}
    assert cache.nbytes == 100


def test_what_is_too_large_is_not_kept_and_drives_nothing_out() -> None:
    cache: BoundedCache[str, int] = BoundedCache(1000)
    cache.put("a", 1, 125)
    cache.put("b", 2, 126)
    assert cache.kept == {"a": 1}


@given(st.lists(st.integers(0, 300), max_size=50), st.integers(1, 1000))
def test_never_more_than_the_bound_is_kept(sizes: list[int], bound: int) -> None:
    cache: BoundedCache[int, int] = BoundedCache(bound)
    for number, size in enumerate(sizes):
        cache.put(number, size, size)
        assert cache.nbytes == sum(cache.kept.values()) <= bound
