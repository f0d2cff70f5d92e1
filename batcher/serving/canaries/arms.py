"""How often a version has failed, in a trial and before it."""

from __future__ import annotations

from math import sqrt

MOST_ANSWERS = 20_000
"""Answers at which both counts are halved, so that those of long ago count less and less."""


class Arm:
    """The answers that a version has given. Any thread.

    Attributes:
        requests: answers, those that failed included.
        errors: answers that failed.
    """

    def __init__(self, requests: int = 0, errors: int = 0) -> None:
        """Begin with nothing, or go on."""
        self.requests = requests
        self.errors = errors

    def add(self, failed: bool) -> None:
        """Count an answer."""
        self.requests += 1
        self.errors += failed

    def fade(self) -> None:
        """Let answers of long ago count less."""
        if self.requests >= MOST_ANSWERS:
            self.requests //= 2
            self.errors = (self.errors + 1) // 2

    def __add__(self, other: Arm) -> Arm:
        """Return the answers of both."""
        return Arm(self.requests + other.requests, self.errors + other.errors)

    @property
    def rate(self) -> float:
        """Share of the answers that failed."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def most_rate(self) -> float:
        """A rate of errors that the true one hardly exceeds: three standard errors more."""
        more = 3.0 * sqrt(self.errors + 1.0) + 3.0
        return (self.errors + more) / self.requests if self.requests else 0.0
