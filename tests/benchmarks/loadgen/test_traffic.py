"""The open and the closed loop, step by step, with connections that only remember."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loadgen.tally import Tally
from benchmarks.loadgen.traffic import ClosedLoop
from tests.benchmarks.loadgen.doubles import Recorder, open_loop


def test_nothing_is_sent_before_it_is_due() -> None:
    traffic, tally, clock = open_loop(1.0)
    connection = Recorder()
    traffic.ready(connection, 0.5)
    assert traffic.send_due(0.999) == 1.0
    assert connection.due == []
    clock.now = 1.25
    assert traffic.send_due(1.25) == math.inf
    assert connection.due == [1.0]
    assert list(tally.lags) == [0.25]
    assert list(tally.waits) == [0.0]


def test_a_late_wake_up_sends_all_that_is_due() -> None:
    traffic, tally, clock = open_loop(1.0, 1.1, 1.2, 3.0)
    connections = [Recorder() for _ in range(4)]
    for connection in connections:
        traffic.ready(connection, 0.0)
    clock.now = 2.0
    assert traffic.send_due(2.0) == 3.0
    assert [connection.due for connection in connections] == [[1.0], [1.1], [1.2], []]
    assert list(tally.lags) == pytest.approx([1.0, 0.9, 0.8])


def test_without_a_free_connection_a_request_waits_its_turn_and_that_is_no_lag() -> None:
    traffic, tally, clock = open_loop(1.0, 1.5)
    for clock.now in (1.0, 1.5):
        traffic.send_due(clock.now)
    assert tally.sendings == 0
    assert traffic.pending
    first, second = Recorder(), Recorder()
    traffic.ready(first, 4.0)
    traffic.ready(second, 5.0)
    assert (first.due, second.due) == ([1.0], [1.5])
    assert list(tally.lags) == [0.0, 0.0]
    assert list(tally.waits) == [3.0, 3.5]
    assert not traffic.pending


def test_a_connection_that_closed_while_it_was_free_gets_no_request() -> None:
    traffic, _, clock = open_loop(1.0)
    closed, good = Recorder(), Recorder()
    traffic.ready(closed, 0.0)
    traffic.ready(good, 0.0)
    closed.open = False
    clock.now = 1.0
    traffic.send_due(1.0)
    assert (closed.due, good.due) == ([], [1.0])


def test_an_answer_that_arrives_late_does_not_hold_up_what_became_due_meanwhile() -> None:
    traffic, _, clock = open_loop(1.0)
    idle, answered = Recorder(), Recorder()
    traffic.ready(idle, 0.0)
    clock.now = 1.5
    traffic.ready(answered, 1.5)
    assert idle.due == [1.0]


def test_a_request_that_waited_past_its_timeout_is_never_sent() -> None:
    traffic, tally, clock = open_loop(1.0, 2.0)
    for clock.now in (1.0, 2.0):
        traffic.send_due(clock.now)
    traffic.expire(1.5)
    connection = Recorder()
    traffic.ready(connection, 3.0)
    assert tally.errors["wait_timeout"] == 1
    assert connection.due == [2.0]


def test_waiting_requests_fail_only_when_no_connection_is_left() -> None:
    traffic, tally, clock = open_loop(1.0)
    clock.now = 1.0
    traffic.send_due(1.0)
    traffic.unreachable(1.1, connected=1)
    assert tally.errors["connect"] == 0
    traffic.unreachable(1.2, connected=0)
    assert tally.errors["connect"] == 1
    assert tally.outstanding == 0


def test_the_schedule_ends_with_the_window() -> None:
    traffic, tally, clock = open_loop(1.0, 2.0, end=2.0)
    clock.now = 5.0
    assert traffic.send_due(5.0) == math.inf
    assert tally.scheduled == 1


@given(
    gaps=st.lists(st.floats(0.0, 0.5), max_size=30),
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 1.0), st.sampled_from(["wake", "answer", "reset", "expire", "down"])
        )
    ),
)
def test_whatever_happens_every_request_is_counted_once(
    gaps: list[float], steps: list[tuple[float, str]]
) -> None:
    due = list(itertools.accumulate(gaps))
    traffic, tally, clock = open_loop(*due)
    under_way: list[float] = []

    class Carrier(Recorder):
        def send(self, due: float, now: float) -> None:
            under_way.append(due)

    for _ in range(2):
        traffic.ready(Carrier(), 0.0)
    for pause, event in steps:
        clock.now += pause
        if event == "wake":
            traffic.send_due(clock.now)
        elif event == "expire":
            traffic.expire(clock.now - 1.0)
        elif event == "down":
            traffic.unreachable(clock.now, connected=0)
        elif under_way:
            ended = under_way.pop(0)
            if event == "answer":
                tally.answered(ended, 200, clock.now)
            else:
                tally.failed(ended, "reset")
            traffic.ready(Carrier(), clock.now)
        unsent = tally.errors["connect"] + tally.errors["wait_timeout"]
        waiting = tally.scheduled - tally.sendings - unsent
        assert waiting >= 0
        assert tally.outstanding == waiting + len(under_way)
        assert tally.scheduled + (traffic.next_due < math.inf) <= len(due)
    assert len(under_way) <= 2


def test_a_closed_loop_holds_its_connections_until_the_start() -> None:
    traffic, tally = ClosedLoop(), Tally(1.0, 2.0)
    early, late = Recorder(), Recorder()
    traffic.ready(early, 0.5)
    traffic.start(1.0, tally)
    traffic.ready(late, 0.6)
    assert traffic.send_due(0.9) == 1.0
    assert early.due == []
    assert traffic.send_due(1.0) == math.inf
    assert early.due == late.due == [1.0]


def test_a_closed_loop_sends_with_every_answer_until_the_end() -> None:
    traffic, tally = ClosedLoop(), Tally(0.0, 2.0)
    connection = Recorder()
    traffic.start(0.0, tally)
    traffic.ready(connection, 0.0)
    traffic.send_due(0.0)
    for now in (0.5, 1.9, 2.0):
        traffic.ready(connection, now)
    assert connection.due == [0.0, 0.5, 1.9]
    assert tally.scheduled == 3


def test_a_failed_connect_of_a_closed_loop_is_a_failed_request() -> None:
    traffic, tally = ClosedLoop(), Tally(0.0, 2.0)
    traffic.unreachable(0.0, connected=0)
    traffic.start(0.0, tally)
    traffic.send_due(0.0)
    traffic.unreachable(1.0, connected=5)
    traffic.unreachable(2.0, connected=0)
    assert tally.errors["connect"] == tally.scheduled == 1
