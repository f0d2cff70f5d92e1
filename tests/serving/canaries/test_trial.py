"""When a trial goes forward and back, by simulation with fixed seeds and by single steps."""

from __future__ import annotations

import json
from math import log
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.traffic import Canary
from batcher.serving.canaries.arms import MOST_ANSWERS, Arm
from batcher.serving.canaries.sequential import ODDS, Evidence
from batcher.serving.canaries.trial import FALSE_ALARMS, THRESHOLD, Outcome, Trial, restored

STEPS = (1.0, 5.0, 25.0, 100.0)


def trial(past: Arm | None = None, **own: Any) -> Trial:
    settings = {"version": "5", "steps": STEPS, "every": 60.0, "min_requests": 100, **own}
    return Trial(Canary(**settings), "5", "3", 0.0, past)


def past_of(rate: float, seed: int, count: int = 1000) -> Arm:
    """Return what a version of that rate of errors has answered before a trial."""
    random = Random(-1 - seed)
    return Arm(count, sum(random.random() < rate for _ in range(count)))


class Users:
    """Requests one after the other, a second apart, whose side and outcome are drawn."""

    def __init__(self, on: Trial, seed: int, tried: float, others: float) -> None:
        self.trial = on
        self.random = Random(seed)
        self.rates = {"5": tried, "3": others}
        self.now = 0.0

    def send(self, most: int, factor: float = 1.0) -> None:
        """Send requests until the trial has ended or the canary has got `most` of them."""
        on, random = self.trial, self.random
        while on.outcome is Outcome.RUNNING and on.tried.requests < most:
            self.now += 1.0
            version = "5" if random.random() < on.share else "3"
            seconds = random.lognormvariate(-4.0, 0.5) * (factor if version == "5" else 1.0)
            on.heard(version, seconds, random.random() < self.rates[version], self.now)


@pytest.mark.parametrize("share", [1.0, 5.0, 25.0])
def test_a_tenth_of_errors_is_rolled_back_within_two_hundred_requests(share: float) -> None:
    needed = []
    for seed in range(60):
        on = trial(steps=(share,), every=86_400)
        Users(on, seed, 0.1, 0.0).send(200)
        assert on.outcome is Outcome.ROLLED_BACK, (seed, on.tried.errors, on.tried.requests)
        needed.append(on.tried.requests)
    assert sorted(needed)[30] <= 100


@pytest.mark.parametrize("share", [30.0, 40.0, 50.0, 60.0, 75.0, 90.0, 99.0, 100.0])
def test_large_steps_find_it_too_where_the_stable_version_has_a_past(share: float) -> None:
    found = 0
    for seed in range(100):
        on = trial(past_of(0.0, seed), steps=(share,), every=86_400)
        Users(on, seed, 0.1, 0.0).send(200)
        found += on.outcome is Outcome.ROLLED_BACK
    assert found >= 96


@pytest.mark.parametrize(("share", "most"), [(50.0, 220), (75.0, 450), (90.0, 1140), (100.0, 210)])
def test_without_a_past_a_large_first_step_finds_it_as_late_as_the_page_says(
    share: float, most: int
) -> None:
    found = 0
    for seed in range(40):
        on = trial(steps=(share,), every=86_400)
        Users(on, seed, 0.1, 0.0).send(most)
        found += on.outcome is Outcome.ROLLED_BACK
    assert found >= 36


@pytest.mark.parametrize("share", [75.0, 90.0])
def test_equal_versions_without_a_past_are_not_rolled_back_at_large_steps(share: float) -> None:
    alarms = 0
    for seed in range(60):
        on = trial(steps=(share,), every=86_400)
        Users(on, seed, 0.02, 0.02).send(1000)
        alarms += on.outcome is Outcome.ROLLED_BACK
    assert alarms == 0


@pytest.mark.parametrize("share", [40.0, 75.0, 100.0])
def test_equal_versions_with_a_past_are_not_rolled_back_at_large_steps(share: float) -> None:
    alarms = 0
    for seed in range(200):
        on = trial(past_of(0.02, seed), steps=(share,), every=86_400)
        Users(on, seed, 0.02, 0.02).send(200)
        alarms += on.outcome is Outcome.ROLLED_BACK
    assert alarms == 0


def test_beside_a_version_that_has_answered_nothing_yet_errors_say_nothing() -> None:
    on = trial(steps=(90.0,), every=86_400)
    for _ in range(20):
        assert on.heard("5", 0.01, True, 1.0) is None
    assert on.evidence["too_many_errors"].log < 1.0


def test_what_makes_both_versions_fail_is_not_the_canarys_fault() -> None:
    alarms = 0
    for seed in range(100):
        on = trial(past_of(0.0, seed), steps=(50.0,), every=86_400)
        users = Users(on, seed, 0.0, 0.0)
        users.send(50)
        users.rates = {"5": 0.8, "3": 0.8}
        users.send(100)
        alarms += on.outcome is Outcome.ROLLED_BACK
    assert alarms <= 3


def test_a_tenth_of_errors_is_found_too_where_the_stable_version_gets_nothing_any_more() -> None:
    found = 0
    for seed in range(100):
        on = trial(steps=(5.0, 100.0), every=1.0, min_requests=100)
        users = Users(on, seed, 0.0, 0.0)
        users.send(100)
        assert on.share == 1.0
        on.settings = on.settings.model_copy(update={"every": 86_400.0})
        users.rates["5"] = 0.1
        users.send(on.tried.requests + 200)
        found += on.outcome is Outcome.ROLLED_BACK
    assert found >= 97


@pytest.mark.parametrize("rate", [0.002, 0.02])
def test_at_most_one_of_a_thousand_trials_of_equal_versions_is_rolled_back(rate: float) -> None:
    alarms = 0
    for seed in range(1000):
        on = trial(steps=(10.0, 50.0), every=50.0, min_requests=50, max_latency_ratio=1.1)
        Users(on, seed, rate, rate).send(10_000)
        assert on.outcome in (Outcome.PROMOTED, Outcome.ROLLED_BACK)
        alarms += on.outcome is Outcome.ROLLED_BACK
    assert alarms <= 1


def test_a_version_that_takes_twice_as_long_is_rolled_back() -> None:
    for seed in range(20):
        on = trial(steps=(25.0,), every=86_400, max_latency_ratio=1.5)
        Users(on, seed, 0.0, 0.0).send(400, factor=3.0)
        assert on.outcome is Outcome.ROLLED_BACK
        assert "times" in on.reason


def test_without_a_ratio_a_slow_version_is_promoted() -> None:
    on = trial(steps=(25.0,), every=10.0)
    Users(on, 1, 0.0, 0.0).send(400, factor=3.0)
    assert on.outcome is Outcome.PROMOTED


def test_slow_answers_of_one_batch_count_once() -> None:
    on = trial(steps=(50.0,), every=86_400, max_latency_ratio=1.5)
    for number in range(100):
        on.heard("3", 0.01, False, float(number))
    for _ in range(100):
        assert on.heard("5", 5.0, False, 200.0) is None
    assert on.evidence["slower"].log < 1.0


def test_a_step_takes_its_time_and_its_requests() -> None:
    on = trial(steps=(5.0, 25.0), every=60.0, min_requests=10)
    for _ in range(9):
        assert on.heard("5", 0.01, False, 30.0) is None
    assert on.tick(100.0) is None, "nine requests are too few"
    decision = on.heard("5", 0.01, False, 101.0)
    assert decision is not None
    assert (decision.what, on.share) == ("stepped", 0.25)
    assert "10 answers in 101 s, 0 of 10 failed" in decision.reason
    for _ in range(10):
        assert on.heard("5", 0.01, False, 102.0) is None
    assert on.tick(160.9) is None, "the step began at 101"
    ended = on.tick(161.0)
    assert ended is not None
    assert (ended.what, on.outcome, on.share) == ("promoted", Outcome.PROMOTED, 1.0)


def test_a_version_that_fails_seldom_is_not_rolled_back_though_the_other_never_fails() -> None:
    on = trial(steps=(5.0,), every=86_400, max_error_rate=0.2)
    Users(on, 1, 0.1, 0.0).send(2000)
    assert on.outcome is Outcome.RUNNING
    assert on.evidence["more_errors"].log > THRESHOLD, "it is found, and allowed"


def test_no_step_is_taken_while_it_is_not_clear_whether_errors_are_chance() -> None:
    on = trial(steps=(50.0, 100.0), every=10.0, min_requests=10)
    for number in range(20):
        on.heard("3", 0.01, False, 1.0)
        on.heard("5", 0.01, number == 0, 1.0)
    assert on.tick(20.0) is None, "one of 20 failed, and none of the others"
    for _ in range(100):
        on.heard("3", 0.01, False, 21.0)
        on.heard("5", 0.01, False, 21.0)
    assert on.share == 1.0, "one of a hundred is allowed"


def test_answers_of_long_ago_count_less() -> None:
    arm = Arm(MOST_ANSWERS - 1, 7)
    arm.add(False)
    arm.fade()
    assert (arm.requests, arm.errors) == (MOST_ANSWERS // 2, 4)
    arm.fade()
    assert arm.requests == MOST_ANSWERS // 2


def test_an_ended_trial_hears_nothing_more() -> None:
    on = trial()
    on.roll_back("a person wants it")
    assert on.heard("5", 0.01, True, 1.0) is None
    assert (on.tried.requests, on.share) == (0, 0.0)


def test_answers_of_other_versions_do_not_count() -> None:
    on = trial()
    assert on.heard("7", 0.01, True, 1.0) is None
    assert on.tried.requests + on.others.requests == 0


def test_a_record_goes_through_a_file_and_the_trial_goes_on() -> None:
    on = trial(Arm(700, 3), steps=(5.0, 25.0))
    Users(on, 3, 0.02, 0.02).send(150)
    text = json.dumps(on.record(1000.0))
    again = restored(on.settings, json.loads(text), 5000.0)
    assert again.record(5000.0) == on.record(1000.0)
    assert again.share == on.share


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 0.99)), max_size=50))
def test_evidence_is_the_mean_of_likelihood_ratios(answers: list[tuple[bool, float]]) -> None:
    evidence, ratios = Evidence(), [1.0] * len(ODDS)
    for is_one, rate in answers:
        evidence.add(is_one, rate)
        for index, odds in enumerate(ODDS):
            other = rate * odds / (rate * odds + 1 - rate)
            ratios[index] *= other / rate if is_one else (1 - other) / (1 - rate)
    assert evidence.log == pytest.approx(log(sum(ratios) / len(ratios)), abs=1e-6)


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.97])
def test_the_expected_evidence_never_grows_where_the_null_hypothesis_is_true(rate: float) -> None:
    for odds in ODDS:
        other = rate * odds / (rate * odds + 1 - rate)
        for true in (rate, rate / 2):
            mean = true * other / rate + (1 - true) * (1 - other) / (1 - rate)
            assert mean <= 1.0 + 1e-12


def test_the_false_alarm_rate_is_shared_by_the_tests() -> None:
    assert pytest.approx(log(3 / FALSE_ALARMS)) == THRESHOLD
