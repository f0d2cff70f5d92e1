"""Who gets which connection, step by step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.client.connection_pool import ConnectionPool, Turn
from batcher.client.retrying import KEEP_ALIVE_S


class Calls:
    """A pool of names, and what happened."""

    def __init__(self, limit: int) -> None:
        self.closed: list[str] = []
        self.woken: list[int] = []
        self.pool: ConnectionPool[str] = ConnectionPool(limit, self.closed.append)

    def wait(self, number: int) -> Turn[str]:
        turn: Turn[str] = Turn(lambda: self.woken.append(number))
        self.pool.wait(turn)
        return turn


def test_the_connection_that_was_used_last_is_used_again() -> None:
    pool = Calls(2).pool
    assert [pool.idle(0), pool.has_place(), pool.has_place(), pool.has_place()] == [
        None,
        True,
        True,
        False,
    ]
    pool.give_back("a", 1)
    pool.give_back("b", 2)
    assert [pool.idle(3), pool.idle(3), pool.idle(3)] == ["b", "a", None]


def test_turns_are_granted_in_their_order_what_is_free() -> None:
    calls = Calls(2)
    assert calls.pool.has_place()
    assert calls.pool.has_place()
    first, second, third = (calls.wait(number) for number in range(3))
    calls.pool.leave(second, 1)
    calls.pool.give_back("a", 1)
    calls.pool.give_up()
    assert (first.connection, third.connection, third.is_granted) == ("a", None, True)
    assert calls.woken == [0, 2]
    assert not calls.pool.has_place(), "the place was passed on"


@pytest.mark.parametrize("granted", ["a", None])
def test_a_turn_that_is_left_too_late_passes_on_what_it_was_granted(granted: str | None) -> None:
    calls = Calls(1)
    assert calls.pool.has_place()
    first, second = calls.wait(1), calls.wait(2)
    calls.pool.give_back("a", 1) if granted else calls.pool.give_up()
    assert first.is_granted
    calls.pool.leave(first, 1)
    assert (second.is_granted, second.connection) == (True, granted)


def test_connections_that_nobody_uses_are_closed_and_their_places_free() -> None:
    calls = Calls(3)
    assert [calls.pool.has_place() for _ in range(3)] == [True] * 3
    calls.pool.give_back("old", 0)
    calls.pool.give_back("new", KEEP_ALIVE_S - 1)
    calls.pool.give_back("newest", KEEP_ALIVE_S)
    assert calls.closed == ["old"]
    assert calls.pool.idle(2 * KEEP_ALIVE_S - 0.5) == "newest"
    assert calls.closed == ["old", "new"]
    assert [calls.pool.has_place() for _ in range(3)] == [True, True, False]


def test_a_connection_that_ends_while_it_is_idle_leaves_its_place() -> None:
    calls = Calls(1)
    assert calls.pool.has_place()
    calls.pool.ended("a")  # in use: whoever uses it gives its place up
    assert not calls.pool.has_place()
    calls.pool.give_back("a", 0)
    calls.pool.ended("a")
    assert calls.pool.has_place()
    assert calls.closed == []


def test_thousands_who_give_up_at_once_are_no_recursion() -> None:
    calls = Calls(1)
    assert calls.pool.has_place()
    turns = 5_000
    for _ in range(turns):
        calls.pool.wait(Turn(calls.pool.give_up))
    calls.pool.give_up()
    assert calls.pool.has_place()


def test_no_connections_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="connections: expected 1 or more; got 0"):
        Calls(0)


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 3))
def test_never_are_there_more_connections_and_never_waits_one_in_vain(
    steps: list[int], limit: int
) -> None:
    calls = Calls(limit)
    pool, held, waiting, made = calls.pool, [], [], 0
    for now, step in enumerate(steps):
        if step <= 1 and (found := pool.idle(now)) is not None:
            held.append(found)
        elif step <= 1 and pool.has_place():
            made += 1
            held.append(f"{made}")
        elif step <= 1:
            waiting.append(calls.wait(now))
        elif step == 2 and held:
            pool.give_back(held.pop(0), now)
        elif step == 3 and held:
            held.pop()
            pool.give_up()
        elif step == 4 and waiting:
            pool.leave(waiting.pop(), now)
        for turn in [turn for turn in waiting if turn.is_granted]:
            waiting.remove(turn)
            made += turn.connection is None
            held.append(turn.connection or f"{made}")
        assert len(held) <= limit
        assert not waiting or len(held) == limit, "somebody waits though there is room"
    assert len(set(held)) == len(held), "no connection has two users"
