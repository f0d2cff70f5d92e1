"""Percentiles, the verdict on the generator, and the account of a result."""

from __future__ import annotations

import json
from array import array

import pytest

from benchmarks.load import LoadResult
from benchmarks.loadgen.report import percentiles, render, verdict
from benchmarks.loadgen.tally import ERRORS, Tally
from tests.benchmarks.loadgen.doubles import result_of, settled


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
    document = json.loads(result.to_json())
    assert document["valid"] is False
    assert "0.500 ms" in document["invalid_reason"]
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
