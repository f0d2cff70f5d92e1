"""How work that clients cause is spread over the turns of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from batcher.frontends.web.turn_budget import MOST_FORMER, TURN_S, TurnBudget


class Turns:
    """A budget, and a list of the work that was done."""

    def __init__(self) -> None:
        """Begin without work."""
        self.clock = Clock()
        self.budget = TurnBudget(self.clock)
        self.done: list[str] = []

    def work(self, name: str, seconds: float = 0.0) -> Callable[[], None]:
        """Return work that takes so many seconds."""

        def work() -> None:
            self.clock.rightNow += seconds
            self.done.append(name)

        return work

    def turn(self) -> list[str]:
        """Let one turn pass; return what was done in it."""
        self.done.clear()
        # Not `advance`, which would also make the calls of the turns behind this one.
        if self.clock.calls:
            call = self.clock.calls.pop(0)
            call.called = True
            call.func(*call.args, **call.kw)
        return list(self.done)


def test_work_is_done_at_once_while_the_turn_has_time() -> None:
    turns = Turns()
    for name in "abc":
        turns.budget.run(name, turns.work(name, TURN_S / 4))
    assert turns.done == ["a", "b", "c"]
    assert not turns.clock.getDelayedCalls()


def test_what_has_no_time_left_is_done_in_the_next_turns() -> None:
    turns = Turns()
    for name in "abcd":
        turns.budget.run(name, turns.work(name, TURN_S))
    assert turns.done == ["a"]
    assert [turns.turn() for _ in range(4)] == [["b"], ["c"], ["d"], []]
    assert not turns.clock.getDelayedCalls()


def test_short_work_shares_a_turn() -> None:
    turns = Turns()
    turns.budget.run("a", turns.work("long", TURN_S))
    for _ in range(5):
        turns.budget.run("a", turns.work("short", TURN_S / 2))
    assert [len(turns.turn()) for _ in range(3)] == [2, 2, 1]


def test_who_has_used_least_is_next() -> None:
    turns = Turns()
    for index in range(3):
        turns.budget.run("flood", turns.work(f"flood {index}", TURN_S))
    assert turns.turn() == ["flood 1"]
    turns.budget.run("other", turns.work("other", TURN_S))
    assert turns.turn() == ["other"]
    assert turns.turn() == ["flood 2"]


def test_who_has_used_much_has_turns_however_many_others_come() -> None:
    turns = Turns()
    for _ in range(20):
        turns.budget.run("long", turns.work("long", TURN_S))
    for _ in range(18):
        turns.turn()
    for index in range(20):
        turns.budget.run(f"new {index}", turns.work("new", TURN_S))
        turns.budget.run(f"newer {index}", turns.work("new", TURN_S))
        if "long" in turns.turn():
            return
    raise AssertionError("the one that was there first waits for all others")


def test_nothing_is_kept_of_owners_that_are_gone_while_others_wait() -> None:
    turns = Turns()
    for index in range(10 * MOST_FORMER):
        turns.budget.run(index, turns.work("page", TURN_S))
        turns.budget.run("flood", turns.work("flood", TURN_S))
        turns.turn()
    assert turns.clock.getDelayedCalls()
    waiting = len(turns.budget._waiting)
    for _ in range(2 * waiting):
        turns.turn()
    assert len(turns.budget._used) <= 2 * len(turns.budget._waiting) + MOST_FORMER + 1


def test_the_work_of_one_owner_is_done_in_order() -> None:
    turns = Turns()
    turns.budget.later("a", turns.work("1"))
    turns.budget.run("a", turns.work("2"))
    turns.budget.later("a", turns.work("3"))
    assert turns.turn() == ["1", "2", "3"]


def test_work_that_comes_of_work_waits_its_turn() -> None:
    turns = Turns()

    def outer() -> None:
        turns.budget.run("a", turns.work("inner"))
        turns.done.append("outer")

    turns.budget.run("a", outer)
    assert turns.done == ["outer"]
    assert turns.turn() == ["inner"]


def test_work_that_raises_is_logged_and_stops_nobody(logged_errors: list[Any]) -> None:
    turns = Turns()

    def fails() -> None:
        raise ZeroDivisionError

    turns.budget.later("a", fails)
    turns.budget.later("b", turns.work("b"))
    assert turns.turn() == ["b"]
    assert len(logged_errors) == 1
    logged_errors.clear()
