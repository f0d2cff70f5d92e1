"""Tests that may be looked at after every answer, and still raise few false alarms.

A test that is made again and again with a fixed threshold finds a difference between equal versions
sooner or later. The tests here hold an *evidence*, a number that begins at 1, and in equal versions
is a supermartingale: its expectation never grows. So by Ville's inequality

    P(the evidence ever reaches 1 / alpha) <= alpha,   however often it is looked at

An answer is a 0 or a 1. Where the null hypothesis is P(1) <= p0, and one alternative is P(1) = p1 >
p0, the evidence is the likelihood ratio: it is multiplied by p1 / p0 after a 1, and by
(1 - p1) / (1 - p0) after a 0. It is a supermartingale for every P(1) <= p0, also where p0 changes
from answer to answer, as long as p0 and p1 are fixed before the answer. Since nobody knows p1, the
evidence is the mean of the ratios of several alternatives, which is a supermartingale too.

Example: p0 = 0.05, and the ones come from a version that has all of them. The alternative
p1 = 0.98 multiplies by 19.7 each time: after 4 ones the evidence is 150,000 / 5 alternatives =
30,000, and alpha = 1 / 2,000 is passed.

Source: Ville 1939; Robbins, "Statistical methods related to the law of the iterated logarithm",
1970, for mixtures; Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research
70 (2022), for their use in experiments on users.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

ODDS = (2.0, 4.0, 16.0, 64.0, 1024.0)
"""Alternatives: times that the odds of a 1 may be higher. Few, since each takes its part of the
evidence, and far apart, since a ratio between two of them is found nearly as soon.
"""


class Evidence:
    """The evidence that ones are more frequent than a rate that may change. Any thread.

    Attributes:
        logs: natural logarithm of the likelihood ratio of each alternative.
        log: that of the evidence.
    """

    def __init__(self, logs: Sequence[float] = ()) -> None:
        """Begin with the evidence 1, or go on with the `logs` of an earlier one."""
        self.logs = list(logs) if len(logs) == len(ODDS) else [0.0] * len(ODDS)
        self.log = self._mean()

    def add(self, is_one: bool, rate: float) -> None:
        """Take in an answer; `rate` is the largest probability of a 1 in equal versions."""
        if not 0.0 < rate < 1.0:  # such an answer says nothing about the two versions
            return
        for index, odds in enumerate(ODDS):
            other = rate * odds / (rate * odds + 1.0 - rate)
            ratio = other / rate if is_one else (1.0 - other) / (1.0 - rate)
            self.logs[index] += log(ratio)
        self.log = self._mean()

    def _mean(self) -> float:
        most = max(self.logs)
        return most + log(sum(exp(each - most) for each in self.logs) / len(self.logs))
