"""The trial of one canary: steps forward while all is well, and back for good when it is not.

    RUNNING --- every, min_requests ---> the next step ... ---> PROMOTED
       |                                                           |
       +--- a test, a broken worker, a person -----> ROLLED_BACK <-+ (a person)

While a trial runs, three tests look at every answer. Each raises at most a third of FALSE_ALARMS,
so at most one trial in a thousand of a version as good as the stable one is rolled back.

- *More errors.* Of the answers that failed, is a larger part the canary's than of all answers?
  Where both versions are alike, an error is the canary's with the probability of its share. The
  larger one of the share as set and as measured counts, so that one key with much traffic does no
  harm. What is found rolls back only if the canary also fails more often than `max_error_rate`.
- *Too many errors*, where the canary gets LARGE_SHARE of the requests or more. Does the canary fail
  more often than `max_error_rate`, and than the stable version has so far, before the trial too?
  The larger the share, the less the first test can tell: with 90 % of the requests, nine of ten
  errors are the canary's if both are alike. Something may make both versions fail at once. So what
  is found rolls back only if as good as all errors of this step are the canary's: SUSPICIOUS.
- *Slower*, with `max_latency_ratio`. Do more than half of the canary's answers take longer than
  that many times the stable version's median, by its upper bound? Answers of one batch are slow
  together, so an answer counts only if it was begun after the last one that has counted had ended.

A trial goes no step forward while the canary fails more often than `max_error_rate` and twice as
often as the stable version: more answers of the same step must tell whether that is chance.

Time is an argument, in seconds on one clock. Any thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from math import log, sqrt
from typing import Any, NamedTuple

from batcher.config.traffic import Canary
from batcher.serving.canaries.arms import Arm
from batcher.serving.canaries.sequential import ODDS, Evidence

FALSE_ALARMS = 1e-3
"""Trials of a version as good as the stable one that are rolled back, at most: one a year for a
model that gets three new versions a day.
"""

TESTS = ("more_errors", "too_many_errors", "slower")
THRESHOLD = log(len(TESTS) / FALSE_ALARMS)
"""Logarithm of the evidence at which a test rolls back."""

LARGE_SHARE = 0.3
"""Share of the requests from which on a canary is compared with the past of the stable version.
Below it, the seven errors that *more errors* needs at most come soon enough.
"""

SUSPICIOUS = 6.5
"""Errors of the canary after each other that make it likelier than its share does that errors are
its own. If both versions fail at once, the first seven errors at a share of 0.5 are all the
canary's once in 128 times.
"""

MEDIAN_OF = 501
"""Answers of the stable version whose median the last test compares with."""

MEDIAN_AFTER = 50
"""Answers of the stable version after which its median is looked at again."""

DOUBT = 2.0
"""Times the stable version's rate of errors from which on a trial goes no step forward. Equal rates
differ as much by chance only while there are few errors.
"""

LEAST_RATE = 1e-4
"""Rate of errors that `max_error_rate: 0` allows: one error is no proof of a rate above 0."""


class Outcome(Enum):
    """How a trial goes, or has ended."""

    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Decision(NamedTuple):
    """What became of a trial, and why.

    Attributes:
        what: `started`, `stepped`, `promoted` or `rolled_back`.
        reason: why, in words.
    """

    what: str
    reason: str


class Trial:
    """One version on trial against the stable one.

    Attributes:
        settings: of the trial.
        candidate: number of the version on trial.
        stable: number of the version that it is compared with.
        outcome: how the trial goes, or has ended.
        step: index of the step.
        reason: why the trial has come to where it is, in words.
        tried: answers of the version on trial.
        others: answers of the stable version.
        past: answers of the stable version before the trial.
        in_step: answers of the version on trial in this step.
        began: when the step began.
        evidence: of each of TESTS.
    """

    def __init__(
        self, settings: Canary, candidate: str, stable: str, now: float, past: Arm | None = None
    ) -> None:
        """Begin with the first step at `now`; `past` are answers that `stable` gave before."""
        self.settings = settings
        self.candidate = candidate
        self.stable = stable
        self.outcome = Outcome.RUNNING
        self.step = 0
        self.reason = "it has begun"
        self.tried, self.others = Arm(), Arm()
        self.past = past or Arm()
        self.in_step = 0
        self.began = now
        self.evidence = {name: Evidence() for name in TESTS}
        self._suspicion = Evidence()
        self._latencies: deque[float] = deque(maxlen=MEDIAN_OF)
        self._median = 0.0
        self._counted_until = now

    @property
    def share(self) -> float:
        """Share of the requests that the version on trial gets now, from 0 to 1."""
        if self.outcome is Outcome.RUNNING:
            return self.settings.steps[self.step] / 100.0
        return float(self.outcome is Outcome.PROMOTED)

    def heard(self, version: str, seconds: float, failed: bool, now: float) -> Decision | None:
        """Take in an answer of `version` that took `seconds`; return what follows from it."""
        if self.outcome is not Outcome.RUNNING or version not in (self.candidate, self.stable):
            return None
        is_tried = version == self.candidate
        if failed:
            share = self._share_of_errors()
            self.evidence["more_errors"].add(is_tried, share)
            self._suspicion.add(is_tried, share)
        (self.tried if is_tried else self.others).add(failed)
        self.in_step += is_tried
        if is_tried and self.share >= LARGE_SHARE:
            self.evidence["too_many_errors"].add(failed, self._allowed_rate())
        if not failed:
            self._note_latency(is_tried, seconds, now)
        return self._alarm() or self.tick(now)

    def _share_of_errors(self) -> float:
        """Return the largest share of all errors that is the canary's if it is no worse."""
        answers = self.tried.requests + self.others.requests
        measured = self.tried.requests / answers if answers else 0.0
        return max(self.share, measured)

    def _allowed_rate(self) -> float:
        """Return the largest rate of errors that the canary may have."""
        known = self.past + self.others
        # Beside a version that has answered nothing yet, no error says anything.
        most = 1.0 if self.share < 1.0 and not known.requests else known.most_rate
        return min(max(self.settings.max_error_rate, most, LEAST_RATE), 0.99)

    def _note_latency(self, is_tried: bool, seconds: float, now: float) -> None:
        latencies, ratio = self._latencies, self.settings.max_latency_ratio
        if not is_tried:
            latencies.append(seconds)
            # Seldom, since to sort hundreds takes tens of microseconds.
            if self.others.requests % MEDIAN_AFTER == 0:
                self._median = most_median(sorted(latencies))
        elif ratio is not None and self._median and now - seconds >= self._counted_until:
            self._counted_until = now
            self.evidence["slower"].add(seconds > ratio * self._median, 0.5)

    def _alarm(self) -> Decision | None:
        """Roll back if a test says so."""
        passed = {name: each.log >= THRESHOLD for name, each in self.evidence.items()}
        most, tried, others = self.settings.max_error_rate, self.tried, self.others
        is_its_own = passed["too_many_errors"] and self._is_suspicious
        if is_its_own or (passed["more_errors"] and tried.rate > most):
            return self.roll_back(
                f"{tried.errors} of {tried.requests} answers of version {self.candidate} failed, "
                f"and {others.errors} of {others.requests} of version {self.stable}; "
                f"max_error_rate is {most:g}"
            )
        if passed["slower"]:
            return self.roll_back(
                f"most answers of version {self.candidate} take more than "
                f"{self.settings.max_latency_ratio:g} times {self._median * 1e3:.1f} ms, the "
                f"median of version {self.stable}"
            )
        return None

    @property
    def _is_suspicious(self) -> bool:
        """Whether the canary has more of this step's errors than its share would make likely."""
        if self.share == 1.0:  # nobody else can have errors
            return True
        return self._suspicion.log >= SUSPICIOUS * log(1.0 / self.share) - log(len(ODDS))

    def tick(self, now: float) -> Decision | None:
        """Go a step forward if that is due at `now`; return what follows."""
        settings = self.settings
        is_due = now - self.began >= settings.every and self.in_step >= settings.min_requests
        if self.outcome is not Outcome.RUNNING or not is_due or self._is_doubtful:
            return None
        reason = (
            f"{self.in_step} answers in {now - self.began:.0f} s, {self.tried.errors} of "
            f"{self.tried.requests} failed since the trial began"
        )
        self.step += 1
        self.began, self.in_step = now, 0
        self._suspicion = Evidence()
        if self.step == len(settings.steps):
            self.step -= 1
            return self.promote(reason)
        self.reason = reason
        return Decision("stepped", reason)

    @property
    def _is_doubtful(self) -> bool:
        """Whether the canary fails so often that more answers must tell whether that is chance."""
        usual = (self.past + self.others).rate
        return self.tried.rate > max(self.settings.max_error_rate, DOUBT * usual)

    def promote(self, reason: str) -> Decision:
        """End the trial well: all requests go to the version that was tried."""
        self.outcome, self.reason = Outcome.PROMOTED, reason
        return Decision("promoted", reason)

    def roll_back(self, reason: str) -> Decision:
        """End the trial: no request goes to the version that was tried."""
        self.outcome, self.reason = Outcome.ROLLED_BACK, reason
        return Decision("rolled_back", reason)

    def record(self, now: float) -> dict[str, Any]:
        """Return the state at `now` as a value that JSON can hold."""
        return {
            "candidate": self.candidate,
            "stable": self.stable,
            "outcome": self.outcome.value,
            "step": self.step,
            "reason": self.reason,
            "tried": [self.tried.requests, self.tried.errors],
            "others": [self.others.requests, self.others.errors],
            "past": [self.past.requests, self.past.errors],
            "in_step": self.in_step,
            "step_s": now - self.began,
            "evidence": {name: each.logs for name, each in self.evidence.items()},
        }


def most_median(ascending: Sequence[float]) -> float:
    """Return what the true median of a sample hardly exceeds: four standard errors above its own.

    The number of n values below the true median has a standard deviation of sqrt(n) / 2. So of 400
    values, it is the one with 240 below it.
    """
    count = len(ascending)
    return ascending[min(int(count / 2 + 2.0 * sqrt(count)), count - 1)]


def restored(settings: Canary, record: dict[str, Any], now: float) -> Trial:
    """Return the trial whose state `record` holds, which goes on at `now`.

    Raises KeyError, TypeError or ValueError: it is no record of a trial.
    """
    trial = Trial(settings, str(record["candidate"]), str(record["stable"]), now)
    trial.outcome = Outcome(record["outcome"])
    trial.step = min(max(int(record["step"]), 0), len(settings.steps) - 1)
    trial.reason = str(record["reason"])
    trial.tried = Arm(*map(int, record["tried"]))
    trial.others = Arm(*map(int, record["others"]))
    trial.past = Arm(*map(int, record.get("past", ())))
    trial.in_step = int(record["in_step"])
    trial.began = now - float(record["step_s"])
    trial.evidence = {
        name: Evidence([float(each) for each in record["evidence"][name]]) for name in TESTS
    }
    return trial


def arms_of(trial: Trial | None) -> dict[str, Arm]:
    """Return all answers that are known of either version of `trial`, by its number."""
    if trial is None:
        return {}
    return {trial.stable: trial.past + trial.others, trial.candidate: trial.tried + Arm()}


def status_of(trial: Trial, now: float) -> dict[str, Any]:
    """Return where `trial` is at `now`, for people and programs, as a value that JSON can hold."""
    arms = ((trial.candidate, trial.tried), (trial.stable, trial.others))
    return {
        "candidate": trial.candidate,
        "stable": trial.stable,
        "outcome": trial.outcome.value,
        "percent": round(100.0 * trial.share, 6),
        "step": trial.step + 1,
        "steps": list(trial.settings.steps),
        "reason": trial.reason,
        "seconds_in_step": round(now - trial.began, 3),
        "every_s": trial.settings.every,
        "answers_in_step": trial.in_step,
        "min_requests": trial.settings.min_requests,
        "answers": {
            number: {"requests": arm.requests, "errors": arm.errors} for number, arm in arms
        },
        "evidence": {name: round(each.log, 3) for name, each in trial.evidence.items()},
        "rolled_back_at": round(THRESHOLD, 3),
        "false_alarm_rate": FALSE_ALARMS,
    }
