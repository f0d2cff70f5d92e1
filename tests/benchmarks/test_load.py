"""The load generator without sockets: schedules, bookkeeping, answers, verdicts, command lines."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import load
from benchmarks.load import LoadError, LoadOptions, LoadResult, main, run_load
from benchmarks.loadgen.client import Connection, Pool, Target
from benchmarks.loadgen.options import parse
from benchmarks.loadgen.report import conclude, percentiles, render, verdict
from benchmarks.loadgen.schedule import constant, poisson, split_time
from benchmarks.loadgen.tally import ERRORS, ErrorKind, Tally
from benchmarks.loadgen.traffic import ClosedLoop, OpenLoop, Traffic

URL = "http://127.0.0.1:8080/predict"


class Clock:
    """Time that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A connection that remembers what it was told to send."""

    def __init__(self) -> None:
        self.open = True
        self.due: list[float] = []

    def send(self, due: float, now: float) -> None:
        self.due.append(due)


def take(number: int, times: Iterator[float]) -> list[float]:
    return list(itertools.islice(times, number))


def open_loop(*due: float, end: float = math.inf) -> tuple[OpenLoop, Tally, Clock]:
    clock, tally = Clock(), Tally(0.0, end)
    traffic = OpenLoop(itertools.chain(due, itertools.repeat(math.inf)), clock)
    traffic.start(0.0, tally)
    return traffic, tally, clock


def settled(**counts: int) -> Tally:
    """A tally of a window of 2 s.

    `answered` with status 200 within it, the others failed that way.
    """
    tally = Tally(10.0, 12.0)
    for kind, count in counts.items():
        for _ in range(count):
            tally.taken_up(11.0, 11.0005)
            if kind not in ("connect", "wait_timeout"):
                tally.sent(11.0, 0.0)
            if kind == "answered":
                tally.answered(11.0, 200, 11.25)
            else:
                tally.failed(11.0, cast(ErrorKind, kind))
    return tally


def result_of(tally: Tally, max_lag_ms: float = 2.0, **options: Any) -> LoadResult:
    return conclude(tally, LoadOptions(URL, **options).describe(), max_lag_ms, 0.25)


# Schedules


def test_a_constant_schedule_does_not_drift() -> None:
    times = constant(10_000.0)
    assert take(3, times) == [0.0, 0.0001, 0.0002]
    assert next(itertools.islice(constant(3.0), 300_000, None)) == 100_000.0


def test_a_poisson_schedule_keeps_its_mean_rate() -> None:
    assert take(100_000, poisson(500.0, seed=1))[-1] == pytest.approx(100_000 / 500.0, rel=0.01)


def test_a_poisson_schedule_is_as_irregular_as_independent_users() -> None:
    times = take(100_000, poisson(500.0, seed=2))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 0
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) == pytest.approx(mean, rel=0.02)


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    first = take(3000, poisson(100.0, seed=7))
    assert take(3000, poisson(100.0, seed=7)) == first
    assert take(3000, poisson(100.0, seed=8)) != first


def test_a_time_is_split_into_seconds_and_nanoseconds_and_never_disarms() -> None:
    assert split_time(12.25) == (12, 250_000_000)
    assert split_time(math.inf) == (0, 0)


# Percentiles and the verdict


def test_on_time_are_the_answers_200_within_the_deadline_and_refusals_are_timed_apart() -> None:
    tally = Tally(10.0, 12.0)
    for status, seconds in ((200, 0.03), (200, 0.05), (503, 0.001), (504, 0.04), (500, 0.9)):
        tally.taken_up(11.0, 11.0)
        tally.sent(11.0, 0.0)
        tally.answered(11.0, status, 11.0 + seconds)
    result = result_of(tally, deadline_ms=40.0)
    assert result.on_time_rate == 0.5
    assert (result.latency_refused_ms["p50"], result.latency_refused_ms["max"]) == (1.0, 40.0)
    assert result_of(tally).on_time_rate == 1.0, "without a deadline every answer is on time"


def test_percentiles_are_observed_values_in_ms() -> None:
    times = percentiles(array("d", [number / 1000 for number in range(100, 0, -1)]))
    assert times == {
        "p50": 50,
        "p90": 90,
        "p95": 95,
        "p99": 99,
        "p99.9": 100,
        "max": 100,
        "mean": 50.5,
    }


def test_one_value_is_every_percentile() -> None:
    assert set(percentiles(array("d", [0.003])).values()) == {3.0}


def test_nothing_measured_has_no_percentiles() -> None:
    assert percentiles(array("d")) == {}


def test_a_lag_at_the_limit_is_valid_and_above_it_is_not() -> None:
    assert verdict(100, {"p99": 2.0, "max": 50.0}, 2.0) is None
    reason = verdict(100, {"p99": 2.001}, 2.0)
    assert reason is not None
    assert "2.001 ms" in reason


def test_a_run_without_requests_is_invalid() -> None:
    assert verdict(0, {}, 2.0) is not None


# Open loop


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


# Closed loop


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


# Connections

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


class Sockets:
    """Socket, transport and future of one connection, in memory."""

    def __init__(self, accepts: int | type[OSError] = 1000) -> None:
        self.accepts = accepts
        self.written = b""
        self.events: list[str] = []

    def send(self, data: bytes) -> int:
        if not isinstance(self.accepts, int):
            raise self.accepts
        self.written += data[: self.accepts]
        return min(len(data), self.accepts)

    def write(self, data: bytes) -> None:
        self.events.append("write")
        self.written += data

    def abort(self) -> None:
        self.events.append("abort")

    def close(self) -> None:
        self.events.append("close")

    def done(self) -> bool:
        return "closed" in self.events

    def set_result(self, result: None) -> None:
        self.events.append("closed")


class Trip:
    """A connection in memory with one request, due at 1.0, under way."""

    def __init__(self, sockets: Sockets | None = None) -> None:
        self.sockets = sockets or Sockets()
        traffic, self.tally, self.clock = open_loop(1.0, 50.0)
        self.traffic: Traffic = traffic
        self.pool = Pool(Target(0, (), b"REQUEST", 5.0), traffic, self.clock)
        self.pool.tally = self.tally
        self.connection = Connection(self.pool, cast(Any, self.sockets), cast(Any, self.sockets))
        self.connection.connection_made(cast(Any, self.sockets))
        self.clock.now = 1.0
        traffic.send_due(1.0)
        self.clock.now = 3.0

    @property
    def ends(self) -> tuple[int, dict[str, int]]:
        return self.tally.answers, {
            kind: count for kind, count in self.tally.errors.items() if count
        }


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
def test_an_answer_in_two_pieces_is_one_answer(cut: int) -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER[:cut])
    assert trip.ends == (0, {})
    trip.connection.data_received(ANSWER[cut:])
    assert trip.ends == (1, {})
    assert list(trip.tally.latencies[200]) == [2.0]


def test_a_connection_carries_one_request_after_the_other() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER)
    trip.clock.now = 50.0
    trip.traffic.send_due(50.0)
    trip.connection.data_received(ANSWER.replace(b"200 OK", b"503 Busy"))
    assert trip.sockets.written == b"REQUEST" * 2
    assert {status: len(times) for status, times in trip.tally.latencies.items()} == {
        200: 1,
        503: 1,
    }


def test_an_informational_answer_is_passed_over() -> None:
    trip = Trip()
    trip.connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert trip.ends == (0, {})
    trip.connection.data_received(ANSWER)
    assert trip.ends == (1, {})


def test_an_answer_that_closes_ends_the_connection_without_an_error() -> None:
    trip = Trip()
    trip.connection.data_received(CLOSING)
    assert trip.sockets.events == ["close"]
    assert not trip.connection.open
    trip.connection.connection_lost(None)
    assert trip.ends == (1, {})
    assert trip.sockets.events == ["close", "closed"]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        ANSWER + ANSWER,
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
)
def test_what_is_not_one_answer_is_a_protocol_error_and_ends_the_connection(data: bytes) -> None:
    trip = Trip()
    trip.connection.data_received(data)
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"protocol": 1})
    assert trip.sockets.events == ["abort", "closed"]


def test_bytes_behind_a_good_answer_cost_the_connection_but_not_the_answer() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER + b"garbage")
    assert trip.ends == (1, {})
    assert trip.sockets.events == ["close"]


def test_an_answer_nobody_asked_for_ends_the_connection_and_counts_nowhere() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER)
    trip.connection.data_received(ANSWER)
    assert trip.ends == (1, {})
    assert trip.sockets.events == ["abort"]


def test_a_lost_connection_resets_the_request_under_way_once() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER[:-1])
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"reset": 1})
    assert trip.pool.connections == set()


def test_a_lost_idle_connection_is_no_error() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER)
    trip.connection.connection_lost(ConnectionResetError())
    assert trip.ends == (1, {})


def test_a_request_without_an_answer_times_out_once_and_ends_its_connection() -> None:
    trip = Trip()
    trip.pool.expire(1.0)
    assert trip.pool.busy
    trip.pool.expire(1.5)
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"timeout": 1})
    assert not trip.pool.busy


@pytest.mark.parametrize("accepts", [3, BlockingIOError])
def test_what_the_socket_does_not_take_goes_to_the_transport_in_order(
    accepts: int | type[OSError],
) -> None:
    trip = Trip(Sockets(accepts))
    assert trip.sockets.written == b"REQUEST"
    trip.sockets.accepts = (
        1000  # it has room again, but the transport may still hold bytes that come first
    )
    trip.connection.data_received(ANSWER)
    trip.clock.now = 50.0
    trip.traffic.send_due(50.0)
    assert trip.sockets.written == b"REQUEST" * 2
    assert trip.sockets.events == ["write", "write"]


def test_a_broken_socket_is_a_reset() -> None:
    trip = Trip(Sockets(BrokenPipeError))
    assert trip.sockets.events == ["abort"]
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"reset": 1})


# Accounts and results


def test_warm_up_requests_are_counted_nowhere_but_their_late_answers_are_throughput() -> None:
    tally = Tally(10.0, 20.0)
    tally.taken_up(9.9, 9.9)
    tally.sent(9.9, 0.0)
    tally.answered(9.9, 200, 10.1)
    tally.failed(9.8, "reset")
    assert (tally.scheduled, tally.sendings, tally.answers, tally.errors["reset"]) == (0, 0, 0, 0)
    assert tally.in_window == {200: 1}


def test_an_answer_after_the_window_counts_with_its_latency_but_not_as_throughput() -> None:
    tally = Tally(10.0, 20.0)
    tally.taken_up(19.0, 19.0)
    tally.sent(19.0, 0.0)
    tally.answered(19.0, 200, 22.0)
    result = result_of(tally)
    assert result.latency_ms["max"] == 3000.0
    assert (result.offered_rate, result.achieved_rate) == (0.1, 0.0)


def test_the_account_of_a_result_adds_up() -> None:
    result = result_of(
        settled(answered=7, connect=1, wait_timeout=2, timeout=3, reset=4, protocol=5)
    )
    assert (result.scheduled, result.sent, result.answered, result.unanswered) == (22, 19, 7, 12)
    assert result.statuses == {"200": 7}
    assert result.errors == {
        "connect": 1,
        "wait_timeout": 2,
        "timeout": 3,
        "reset": 4,
        "protocol": 5,
    }
    assert result.scheduled == result.answered + sum(result.errors.values())
    assert set(result.errors) == set(ERRORS)
    assert (result.offered_rate, result.achieved_rate) == (11.0, 3.5)


@pytest.mark.parametrize("fault", ["lost", "twice", "answered unsent"])
def test_a_request_that_is_unaccounted_for_is_an_error_not_a_result(fault: str) -> None:
    tally = settled(answered=3)
    if fault == "lost":
        tally.taken_up(11.0, 11.0)
    elif fault == "twice":
        tally.failed(11.0, "reset")
    else:
        tally.taken_up(11.0, 11.0)
        tally.answered(11.0, 200, 11.5)
    with pytest.raises(AssertionError):
        result_of(tally)


def test_latency_is_told_for_all_answers_and_for_good_ones_alone() -> None:
    tally = settled(answered=1)
    tally.taken_up(11.0, 11.0)
    tally.sent(11.0, 0.0)
    tally.answered(11.0, 503, 11.001)
    result = result_of(tally)
    assert (result.latency_ms["mean"], result.latency_200_ms["mean"]) == (125.5, 250.0)
    assert (result.achieved_rate, result.achieved_rate_200) == (1.0, 0.5)


def test_a_lagging_run_is_invalid_in_json_and_loud_in_words() -> None:
    result = result_of(settled(answered=3), max_lag_ms=0.4)
    told = json.loads(result.to_json())
    assert told["valid"] is False
    assert "0.500 ms" in told["invalid_reason"]
    assert render(result).startswith("!!! INVALID RUN")
    assert render(result).endswith("!!!")
    assert "INVALID" not in render(result_of(settled(answered=3)))


def test_a_closed_loop_has_no_lag_and_so_is_not_judged_by_it() -> None:
    result = result_of(settled(answered=3), max_lag_ms=0.4, closed=True)
    assert result.valid
    assert (result.lag_ms, result.connection_wait_ms) == ({}, {})


def test_a_result_survives_its_json() -> None:
    result = result_of(settled(answered=3, reset=1))
    assert LoadResult.from_json(result.to_json()) == result


def test_a_run_without_answers_can_be_told_in_words() -> None:
    words = render(result_of(settled(reset=2)))
    assert "reset: 2" in words
    assert "latency      -" in words


# Options


def test_a_command_line_becomes_options() -> None:
    line = (
        f"{URL} --schedule constant --rate 50 --duration 3 --warmup 0 --connections 8 --method put "
        "--body some.bin"
    )
    words = [
        *line.split(),
        "--header",
        "Accept: text/csv",
        "--header",
        "X-A:b:c",
        "--seed=4",
        "--json",
        "-",
    ]
    options, destination = parse(words, {"some.bin": b"abc"}.__getitem__)
    assert destination == "-"
    assert options == LoadOptions(
        URL,
        schedule="constant",
        rate=50.0,
        duration=3.0,
        warmup=0.0,
        connections=8,
        method="put",
        body=b"abc",
        headers=(("Accept", "text/csv"), ("X-A", "b:c")),
        seed=4,
    )


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(URL, method="GET"),
        LoadOptions(URL, closed=True, connections=3, random_body=0, method="POST"),
        LoadOptions(
            URL,
            schedule="constant",
            rate=0.1,
            body=b"\x00x",
            method="POST",
            headers=(("-a", "-b: c"),),
        ),
        LoadOptions(
            URL,
            realtime=True,
            max_lag_ms=0.5,
            warmup=0.0,
            seed=9,
            timeout=0.25,
            random_body=7,
            method="PUT",
        ),
    ],
)
def test_options_survive_their_command_line(options: LoadOptions) -> None:
    assert parse(options.argv(), {"-": options.body}.__getitem__) == (options, None)


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"duration": -1.0},
        {"duration": math.inf},
        {"warmup": -0.1},
        {"connections": 0},
        {"timeout": 0.0},
        {"seed": -1},
        {"schedule": "bursty"},
        {"url": "https://127.0.0.1/"},
        {"url": "127.0.0.1:8080"},
        {"url": "http://127.0.0.1/a b"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://127.0.0.1:0/"},
        {"method": "HEAD"},
        {"random_body": -1},
        {"body": b"x", "random_body": 1},
        {"closed": True, "realtime": True},
        {"headers": (("a", "b\r\nc: d"),)},
        {"headers": (("content-length", "3"),)},
        {"headers": (("", "b"),)},
    ],
)
def test_what_cannot_be_run_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        replace(LoadOptions(URL), **change)


@pytest.mark.parametrize(
    "words", [[URL, "--rate=0"], [URL, "--header=x"], [URL, "--body=none"], [], [URL, "--rat=1"]]
)
def test_a_mistake_in_the_command_line_exits_with_status_2(words: list[str]) -> None:
    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(SystemExit) as caught:
        parse(words, missing)
    assert caught.value.code == 2


def test_a_request_without_a_body_is_a_get() -> None:
    assert LoadOptions("http://h:81/a?b=c").request == b"GET /a?b=c HTTP/1.1\r\nhost: h:81\r\n\r\n"


def test_a_request_with_a_body_states_its_length_and_type() -> None:
    head, _, body = LoadOptions("http://h", body=b"abc").request.partition(b"\r\n\r\n")
    fields = [b"host: h", b"content-length: 3", b"content-type: application/octet-stream"]
    assert head.split(b"\r\n") == [b"POST / HTTP/1.1", *fields]
    assert body == b"abc"


def test_given_headers_replace_the_usual_ones() -> None:
    head = LoadOptions(
        URL, body=b"{}", headers=(("Content-Type", "application/json"), ("Host", "x"))
    ).request
    assert head.lower().count(b"content-type:") == head.lower().count(b"host:") == 1
    assert b"Content-Type: application/json\r\n" in head


def test_a_random_body_has_its_length_and_follows_the_seed() -> None:
    bodies = [LoadOptions(URL, random_body=256, seed=seed).payload for seed in (1, 1, 2)]
    assert [len(body) for body in bodies] == [256] * 3
    assert bodies[0] == bodies[1] != bodies[2]


def test_a_description_names_no_host_and_shows_no_secret() -> None:
    options = LoadOptions(
        "http://secret.example:1/p", headers=(("Authorization", "secret"), ("Accept", "text/csv"))
    )
    described = options.describe()
    assert "secret" not in json.dumps(described)
    assert described["headers"] == {"Authorization": "(set)", "Accept": "text/csv"}


# The program and its entry point


@pytest.mark.parametrize(("max_lag_ms", "status"), [(2.0, 0), (0.4, 3)])
def test_an_invalid_run_exits_with_status_3(
    max_lag_ms: float,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(load, "_run", lambda options: result_of(settled(answered=1), max_lag_ms))
    assert main([URL]) == status
    assert ("INVALID" in capsys.readouterr().err) == (status == 3)


def test_json_on_standard_output_is_alone_there(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    result = result_of(settled(answered=1))
    monkeypatch.setattr(load, "_run", lambda options: result)
    assert main([URL, "--json", "-"]) == 0
    captured = capsysbinary.readouterr()
    assert LoadResult.from_json(captured.out) == result
    assert b"latency" in captured.err


def test_a_load_that_cannot_run_says_why_and_exits_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: LoadOptions) -> LoadResult:
        raise LoadError("cannot connect")

    monkeypatch.setattr(load, "_run", fail)
    assert main([URL]) == 1
    assert "cannot connect" in capsys.readouterr().err


class Process:
    """Stands for `subprocess.run`."""

    def __init__(self, status: int, out: bytes = b"", err: bytes = b"") -> None:
        self.done = subprocess.CompletedProcess([], status, out, err)
        self.command: list[str] = []
        self.stdin = b""

    def __call__(
        self, command: list[str], input: bytes, **_: Any
    ) -> subprocess.CompletedProcess[Any]:
        self.command, self.stdin = command, input
        return self.done


@pytest.mark.parametrize("status", [0, 3])
def test_run_load_hands_the_options_over_and_reads_the_result(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of(settled(answered=1))
    process = Process(status, out=result.to_json())
    monkeypatch.setattr(subprocess, "run", process)
    options = LoadOptions(URL, rate=5.0, body=b"abc", method="POST")
    assert run_load(options) == result
    assert parse(process.command[2:], {"-": process.stdin}.__getitem__) == (options, "-")


@pytest.mark.parametrize("status", [1, 2, -9])
def test_run_load_raises_what_the_generator_said(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", Process(status, err=b"load: cannot connect\n"))
    with pytest.raises(LoadError, match="cannot connect"):
        run_load(LoadOptions(URL))
