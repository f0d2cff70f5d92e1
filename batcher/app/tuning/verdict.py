"""Whether settings are better than the present ones, by several rounds of real load.

Within a round all settings meet the same machine, so they are compared within rounds:

    ratio of a round = what the settings did / what the present settings did
    gain             = median of the ratios - 1
    noise            = t * 1.25 * 1.48 * median deviation of the ratios / sqrt(rounds)

1.48 makes a median deviation a standard deviation, 1.25 is how much less exact a median is than a
mean, and t is Student's quantile: in 19 of 20 cases two equal settings differ by less. The noise is
never taken as less than 2 % of the answers and 5 % of the 99th percentile: machines differ from day
to day by more.

| answers in time | p99 | settings are |
|---|---|---|
| more, beyond the noise | any, but with equal deadlines | better |
| as many, within the noise | less, beyond the noise | better |
| else | | not better |
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from statistics import median
from typing import Literal, NamedTuple

from batcher.app.tuning.curve import DEVIATIONS
from batcher.app.tuning.sending import Measured

STUDENT = {3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31}
"""Student's quantile (0.975) by the number of rounds."""

LEAST_ANSWERS_NOISE, LEAST_P99_NOISE = 0.02, 0.05
"""Least noise of answers and of the 99th percentile, as shares."""

MEDIAN_ERROR = 1.25
"""Error of a median over that of a mean, of a normal distribution."""


Gain = Literal["answers", "p99"]
"""In what settings are better."""


class Compared(NamedTuple):
    """A number of some settings over that of the present ones.

    Attributes:
        gain: how much larger it is, as a share.
        noise: what such a share may be without any reason.
    """

    gain: float
    noise: float


class Verdict(NamedTuple):
    """What real load has shown of some settings.

    Attributes:
        is_better: whether they are better than the present ones by more than the noise.
        answers: answers in time beside those of the present settings.
        p99: the 99th percentile beside theirs.
    """

    is_better: bool
    answers: Compared
    p99: Compared

    def promised(self, gain: Gain | None) -> Verdict:
        """Return the verdict on settings from which a `gain` was to be expected; None for none.

        Another gain than that is luck, or of something that nobody knows.
        """
        kept = {
            "answers": self.answers.gain > self.answers.noise,
            "p99": self.p99.gain < -self.p99.noise,
        }
        return self._replace(is_better=self.is_better and gain is not None and kept[gain])

    @property
    def words(self) -> str:
        """Return the verdict in words."""
        return f"answers {_share(self.answers)}, p99 {_share(self.p99)}"


def verdict(present: Sequence[Measured], other: Sequence[Measured]) -> Verdict:
    """Compare the rounds of two settings, as the module says."""
    answers = compared(
        [each.in_time for each in present], [each.in_time for each in other], LEAST_ANSWERS_NOISE
    )
    p99 = compared([each.p99 for each in present], [each.p99 for each in other], LEAST_P99_NOISE)
    as_many = abs(answers.gain) <= answers.noise
    is_better = answers.gain > answers.noise or (as_many and p99.gain < -p99.noise)
    return Verdict(is_better, answers, p99)


def compared(present: Sequence[float], other: Sequence[float], least: float) -> Compared:
    """Compare the rounds of one number; `least` is the least noise."""
    ratios = [_ratio(new, old) for old, new in zip(present, other, strict=True)]
    middle = median(ratios)
    if middle == inf:
        return Compared(inf, least)
    deviation = DEVIATIONS * median(abs(ratio - middle) for ratio in ratios)
    error = MEDIAN_ERROR * deviation / sqrt(len(ratios))
    return Compared(middle - 1, max(least, STUDENT[len(ratios)] * error))


def _ratio(new: float, old: float) -> float:
    if new == old:
        return 1.0
    return new / old if old else inf


def _share(number: Compared) -> str:
    return f"{number.gain:+.1%} (noise {number.noise:.1%})"


def best(verdicts: Sequence[Verdict]) -> int | None:
    """Return the place of the best of `verdicts`, the first of equal ones; None without any."""
    better = [each for each in verdicts if each.is_better]
    if not better:
        return None
    most = max(each.answers.gain for each in better)
    equal = [each for each in better if each.answers.gain >= most - each.answers.noise]
    return verdicts.index(equal[0])
