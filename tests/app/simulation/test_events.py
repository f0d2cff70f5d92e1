"""Simulated time, the timers of the simulated loop, and its turns."""

from __future__ import annotations

import pytest
from twisted.internet.error import AlreadyCalled, AlreadyCancelled

from batcher.app.simulation.events import Events
from batcher.app.simulation.loop import Core, Loop


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def loop(events: Events) -> Loop:
    return Loop(events, Core(events))


def test_events_run_in_the_order_of_their_times_and_equal_ones_as_they_were_set(
    events: Events,
) -> None:
    ran: list[tuple[float, str]] = []
    for time, name in [(2.0, "c"), (1.0, "a"), (1.0, "b")]:
        events.at(time, lambda name: ran.append((events.now, name)), name)
    events.run()
    assert ran == [(1.0, "a"), (1.0, "b"), (2.0, "c")]


def test_a_timer_rings_once_at_the_time_it_was_last_set_to(events: Events, loop: Loop) -> None:
    rang: list[float] = []
    timer = loop.callLater(1.0, lambda: rang.append(loop.seconds()))
    later = loop.callLater(1.0, lambda: rang.append(-loop.seconds()))
    timer.reset(0.5)
    later.delay(2.0)
    assert (timer.getTime(), timer.active(), later.getTime()) == (0.5, True, 3.0)
    events.run()
    assert rang == [0.5, -3.0]
    with pytest.raises(AlreadyCalled):
        timer.reset(1.0)


def test_a_cancelled_timer_never_rings(events: Events, loop: Loop) -> None:
    timer = loop.callLater(1.0, pytest.fail)
    timer.cancel()
    events.run()
    assert not timer.active()
    with pytest.raises(AlreadyCancelled):
        timer.cancel()


def test_jobs_of_one_moment_are_done_before_what_was_called_soon(
    events: Events, loop: Loop
) -> None:
    done: list[str] = []

    def job(name: str) -> None:
        done.append(name)
        if name == "first":
            loop.call_soon(lambda: done.append("soon"))

    for name in ("first", "second"):
        events.at(1.0, lambda name: loop.post(0.0, job, name), name)
    events.run()
    assert done == ["first", "second", "soon"]


def test_a_job_waits_for_the_work_of_those_before_it(events: Events, loop: Loop) -> None:
    done: list[tuple[str, float]] = []

    def note(name: str) -> None:
        done.append((name, events.now))
        if name == "answers":
            assert [loop.spend(0.5), loop.spend(0.5)] == [1.5, 2.0]

    loop.post(0.0, lambda _: None, None)
    loop.post(1.0, note, "answers")
    loop.post(0.25, note, "next")
    events.run()
    assert done == [("answers", 1.0), ("next", 2.25)]


def test_one_core_does_the_work_of_the_loop_and_of_clients_by_turns(events: Events) -> None:
    core = Core(events)
    loop = Loop(events, core)
    ends: list[float] = []
    loop.post(1.0, lambda _: ends.append(events.now), None)
    loop.post(1.0, lambda _: ends.append(events.now), None)
    events.at(0.5, lambda _: ends.append(-core.take(1.0)))
    events.run()
    assert ends == [-2.0, 1.0, 3.0]
