"""Turns of loads: how many run at once, and in which order."""

from __future__ import annotations

import weakref
from threading import Event

import pytest

from batcher.models.checked import CheckedModel
from batcher.models.protocol import LoadedModel, Progress
from batcher.workers.load_turns import LoadTurn, LoadTurns
from tests.support.crossing import PATIENCE
from tests.workers.process.test_worker import Bench as ChildBench
from tests.workers.test_thread import LOAD_TIMEOUT
from tests.workers.test_thread import Bench as ThreadBench


class Bench:
    """Turns, and which loads have begun.

    Attributes:
        begun: numbers of the loads that have begun, in order.
    """

    def __init__(self, limit: int, loads: int) -> None:
        self.turns = LoadTurns(limit)
        self.begun: list[int] = []
        self.each = [LoadTurn(self.turns) for _ in range(loads)]

    def wait(self, number: int) -> None:
        """Have a load begin when its turn has come."""
        self.each[number].wait(lambda: self.begun.append(number))

    def wait_all(self) -> None:
        """Have every load begin when its turn has come."""
        for number in range(len(self.each)):
            self.wait(number)


def test_a_load_that_has_begun_or_is_not_wanted_is_not_held_any_more() -> None:
    class Load:
        def __call__(self) -> None:
            pass

    turns = LoadTurns(1)
    first, second = LoadTurn(turns), LoadTurn(turns)
    loads = [Load(), Load()]
    held = [weakref.ref(load) for load in loads]
    for turn in (first, second):
        turn.wait(loads.pop(0))
    assert [load() is not None for load in held] == [False, True]
    second.end()
    assert held[1]() is None


def test_as_many_loads_as_the_limit_says_run_at_once_in_the_order_of_their_coming() -> None:
    bench = Bench(2, 4)
    bench.wait_all()
    assert bench.begun == [0, 1]
    assert [turn.is_waiting for turn in bench.each] == [False, False, True, True]
    bench.each[1].end()
    assert bench.begun == [0, 1, 2]
    bench.each[0].end()
    assert bench.begun == [0, 1, 2, 3]


def test_a_load_that_is_not_wanted_any_more_never_begins_and_holds_up_nobody() -> None:
    bench = Bench(1, 3)
    bench.wait_all()
    bench.each[1].end()
    bench.each[0].end()
    assert bench.begun == [0, 2]
    assert not bench.each[1].is_waiting


def test_a_load_that_ends_twice_gives_its_turn_away_once() -> None:
    bench = Bench(1, 3)
    bench.wait_all()
    bench.each[0].end()
    bench.each[0].end()
    assert bench.begun == [0, 1]


def test_a_higher_limit_lets_more_begin_at_once_and_a_lower_one_stops_none() -> None:
    bench = Bench(1, 4)
    bench.wait_all()
    bench.turns.set_limit(3)
    assert bench.begun == [0, 1, 2]
    bench.turns.set_limit(1)
    bench.each[0].end()
    bench.each[1].end()
    assert bench.begun == [0, 1, 2]
    bench.each[2].end()
    assert bench.begun == [0, 1, 2, 3]


def test_a_load_that_ends_while_it_begins_lets_the_next_one_begin() -> None:
    bench = Bench(1, 2)
    bench.each[0].wait(lambda: bench.each[0].end())
    bench.wait(1)
    assert bench.begun == [1]


@pytest.mark.parametrize("ending", ["begun", "given up"])
def test_a_turn_keeps_what_starts_the_load_no_longer_than_the_load_waits(ending: str) -> None:
    class Start:
        def __call__(self) -> None:
            pass

    turns, start = LoadTurns(1), Start()
    busy, turn, alive = LoadTurn(turns), LoadTurn(turns), weakref.ref(start)
    busy.wait(lambda: None)
    turn.wait(start)
    del start
    assert alive() is not None
    (busy if ending == "begun" else turn).end()
    assert alive() is None


def test_a_thread_loads_when_its_turn_has_come_and_its_time_counts_from_then() -> None:
    turns, other = LoadTurns(1), []
    busy = LoadTurn(turns)
    busy.wait(lambda: other.append("begun"))
    bench = ThreadBench(turns=turns)
    loaded = bench.start()
    assert not bench.worker._thread.is_alive()
    bench.loop.clock.advance(LOAD_TIMEOUT * 2)
    assert not loaded.called
    busy.end()
    assert isinstance(bench.loop.wait_for(loaded), LoadedModel)
    LoadTurn(turns).wait(lambda: other.append("the next one"))
    assert other == ["begun", "the next one"]
    bench.end()


def test_a_thread_that_is_told_to_end_while_it_waits_ends_at_once_and_gives_its_turn_away() -> None:
    turns, begun = LoadTurns(1), []
    busy = LoadTurn(turns)
    busy.wait(lambda: None)
    bench = ThreadBench(turns=turns)
    loaded = bench.start()
    assert bench.worker.quit().called
    assert str(bench.loop.error_of(loaded)) == (
        "model 'm' version 1: it was told to end before it loaded"
    )
    LoadTurn(turns).wait(lambda: begun.append("the next one"))
    busy.end()
    assert begun == ["the next one"]
    assert not bench.worker._thread.is_alive()
    assert bench.worker.quit().called


def test_a_load_that_hangs_gives_its_turn_and_the_process_to_the_next_one_in_time() -> None:
    turns, entered, leave = LoadTurns(1), Event(), Event()

    def hang(progress: Progress) -> CheckedModel:
        entered.set()
        assert leave.wait(PATIENCE)
        raise RuntimeError("at last")

    stuck, behind = ThreadBench(load=hang, turns=turns), ThreadBench(turns=turns)
    failed, loaded = stuck.start(), behind.start()
    assert entered.wait(PATIENCE)
    stuck.loop.clock.advance(LOAD_TIMEOUT)
    assert "load_timeout_s" in str(stuck.loop.error_of(failed))
    assert isinstance(behind.loop.wait_for(loaded), LoadedModel)
    leave.set()
    behind.end()
    stuck.end()


def test_a_child_starts_at_once_and_loads_when_its_turn_has_come() -> None:
    turns = LoadTurns(1)
    first, second = ChildBench(turns), ChildBench(turns)
    assert first.happened() == ["child 0 starts", "child 0 loads"]
    assert second.happened() == ["child 0 starts"]
    first.children[0].ready()
    assert second.happened() == ["child 0 loads"]


def test_a_child_that_ends_while_it_waits_or_loads_gives_its_turn_away() -> None:
    turns = LoadTurns(1)
    first, second, third = ChildBench(turns), ChildBench(turns), ChildBench(turns)
    second.children[0].end()
    first.children[0].end()
    assert [len(bench.failures) for bench in (first, second, third)] == [1, 1, 0]
    assert "child 0 loads" in third.happened()
    assert "child 0 loads" not in second.happened()


def test_a_child_that_is_started_again_takes_no_turn() -> None:
    turns = LoadTurns(1)
    bench = ChildBench(turns)
    bench.children[0].ready()
    LoadTurn(turns).wait(lambda: None)
    bench.happened()
    bench.children[0].end()
    bench.clock.advance(0)
    assert "child 1 loads" in bench.happened()


def test_a_child_that_loads_too_long_gives_its_turn_away() -> None:
    turns = LoadTurns(1)
    first, second = ChildBench(turns, load_timeout_s=60), ChildBench(turns)
    second.happened()
    first.clock.advance(60)
    assert second.happened() == ["child 0 loads"]
