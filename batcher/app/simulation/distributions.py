"""Numbers that differ from request to request: rows, deadlines, levels, think times.

    4                      always 4
    1..8                   evenly from 1 to 8
    exp:2                  exponential, mean 2
    geometric:4            whole numbers from 1, mean 4
    lognormal:64,0.8       log-normal: median 64, and 0.8 is the deviation of the logarithm
    1=0.9,32=0.1           some values, by their weights

Times are written with their unit (`exp:2ms`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from batcher.app.simulation.reading import number, split_pairs
from batcher.errors import ConfigError

CHUNK = 4096
"""Numbers that are drawn at once: NumPy's cost of a call is then a few nanoseconds a number."""

FORMS = "4, 1..8, exp:2, geometric:4, lognormal:64,0.8 or 1=0.9,32=0.1"

WHOLE = "expected whole numbers of 1 or more"

Read = Callable[[str], float]


class Distribution:
    """Draws numbers.

    Attributes:
        text: how the distribution is written.
        mean: mean of its numbers.
        constant: the number, if there is only one; else None.
    """

    def __init__(
        self,
        text: str,
        mean: float,
        draw: Callable[[np.random.Generator], Any],
        constant: float | None = None,
    ) -> None:
        """`draw` gives an array of `CHUNK` numbers."""
        self.text = text
        self.mean = mean
        self.constant = constant
        self._draw = draw

    def values(self, random: np.random.Generator) -> Iterator[float]:
        """Iterate, without an end, over numbers drawn by `random`."""
        return repeat(self.constant) if self.constant is not None else self._drawn(random)

    def whole(self, random: np.random.Generator) -> Iterator[int]:
        """Iterate over whole numbers, 1 at least."""
        if self.constant is not None:
            return repeat(max(round(self.constant), 1))
        return (max(round(value), 1) for value in self._drawn(random))

    def _drawn(self, random: np.random.Generator) -> Iterator[float]:
        while True:
            yield from self._draw(random).tolist()


def constant(value: float, text: str = "") -> Distribution:
    """Return the distribution of one number."""
    return Distribution(text or f"{value:g}", value, lambda random: np.full(CHUNK, value), value)


def one_of(values: Sequence[float], text: str) -> Distribution:
    """Return the distribution of `values`, each as likely as the others, written as `text`."""
    return _weighted(text, [(value, 1.0) for value in values], text)


def in_turn(values: Sequence[float], text: str) -> Distribution:
    """Return `values` one after the other, and again from the first one, written as `text`."""
    repeated = np.tile(values, max(CHUNK // len(values), 1))
    return Distribution(text, float(np.mean(values)), lambda random: repeated)


def read_distribution(text: str, what: str, read: Read | None = None) -> Distribution:
    """Return the distribution that `text` says, of numbers that `read` reads; `what` names them.

    Raises:
        ConfigError: `text` is no distribution.
    """
    value = read or (lambda written: number(written, what))
    error = f"{what}: expected {FORMS}; got {text!r}"
    kind, colon, rest = text.partition(":")
    if colon:
        return _of_kind(kind, rest, text, value, error)
    if "=" in text:
        pairs = [(value(each), number(part, "weight")) for each, part in split_pairs(text, error)]
        return _weighted(text, pairs, error)
    if ".." in text:
        low, high = (value(end) for end in text.split("..", 1))
        if low > high:
            raise ConfigError(error)
        return _even(text, low, high, whole=read is None)
    return constant(value(text), text)


def read_counts(text: str, what: str) -> Distribution:
    """Return the distribution that `text` says, of rows or levels; `what` names them.

    Raises:
        ConfigError: `text` is none, or has numbers that are no whole ones of 1 or more.
    """
    found = read_distribution(text, what)
    ends = re.findall(r"(?:^|\.\.|,)\s*([\d.]+?)(?=\.\.|=|$)", text) if ":" not in text else []
    if found.mean < 1 or any(float(end) % 1 or float(end) < 1 for end in ends):
        raise ConfigError(f"{what}: {WHOLE}; got {text!r}")
    return found


def _of_kind(kind: str, rest: str, text: str, value: Read, error: str) -> Distribution:
    if kind == "exp":
        mean = value(rest)
        return Distribution(text, mean, lambda random: random.exponential(mean, CHUNK))
    if kind == "geometric" and value(rest) >= 1:
        mean = value(rest)
        return Distribution(text, mean, lambda random: random.geometric(1 / mean, CHUNK))
    if kind == "lognormal":
        median, comma, sigma = rest.partition(",")
        if comma:
            middle, spread = value(median), number(sigma, "deviation")
            return Distribution(
                text,
                float(middle * np.exp(spread**2 / 2)),
                lambda random: middle * random.lognormal(0.0, spread, CHUNK),
            )
    raise ConfigError(error)


def _weighted(text: str, pairs: list[tuple[float, float]], error: str) -> Distribution:
    values, weights = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    if weights.sum() <= 0:
        raise ConfigError(error)
    shares = weights / weights.sum()
    return Distribution(
        text, float(values @ shares), lambda random: random.choice(values, CHUNK, p=shares)
    )


def _even(text: str, low: float, high: float, whole: bool) -> Distribution:
    if whole:
        return Distribution(
            text, (low + high) / 2, lambda random: random.integers(int(low), int(high) + 1, CHUNK)
        )
    return Distribution(text, (low + high) / 2, lambda random: random.uniform(low, high, CHUNK))
