"""The chart of a tuning: throughput against the 99th percentile, as the load grows."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, isfinite, log10
from statistics import median

from batcher.app.charts import line_chart
from batcher.app.tuning.choosing import Option, text_of
from batcher.app.tuning.sending import Measured
from batcher.app.tuning.tuning import Tuning
from batcher.app.tuning.user_load import scaled

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Times the user's load that are simulated."""

CUT_FACTOR = 6.0
"""Times the measured p99 of the present settings at which the chart ends: a load that cannot be
answered would press all others onto the axis."""

TICKS = 5
"""Ticks of the abscissa, about."""

Point = tuple[float, float]


def chart(found: Tuning) -> str:
    """Return the chart as SVG: a line for each verified setting, and a point of real load."""
    lines: dict[str, list[Point]] = {}
    points: dict[str, list[Point]] = {}
    for option, rounds in zip(found.verified, found.rounds, strict=True):
        lines[f"{text_of(option.changes)}, simulated"] = _simulated(found, option)
        points[f"{text_of(option.changes)}, measured"] = [_measured(rounds)]
    present = _measured(found.rounds[0])[1]
    top = CUT_FACTOR * max(present, found.options[0].result.latency.p99 * 1e3)
    shown = {
        name: [(x, y) for x, y in each if isfinite(y) and y <= top]
        for name, each in (lines | points).items()
    }
    # Nothing may have been answered.
    right = max((x for each in shown.values() for x, _ in each), default=0.0) or 1.0
    title = f"{found.subject.found.name}: {found.user.text}, 0.25 to 3 times"
    return line_chart(
        title,
        "answers in time, rows/s" if found.user.deadline else "answers, rows/s",
        "p99 of latency in ms",
        shown,
        ticks=ticks(right),
    )


def ticks(right: float) -> list[float]:
    """Return even numbers from 0 to `right` or a little beyond: multiples of 1, 2 or 5."""
    unit = 10.0 ** floor(log10(right / TICKS))
    step = unit * next(each for each in (1, 2, 5, 10) if each * unit >= right / TICKS)
    return [step * number for number in range(ceil(right / step) + 1)]


def _simulated(found: Tuning, option: Option) -> list[Point]:
    points = []
    for factor in FACTORS:
        own = {key: each for key, each in option.changes.items() if key not in option.setup.changes}
        at = found.simulator.option(own, option.setup, scaled(found.user.load, factor)).result
        points.append((at.goodput, at.latency.p99 * 1e3))
    return points


def _measured(rounds: Sequence[Measured]) -> Point:
    return median(each.in_time for each in rounds), median(each.p99 for each in rounds) * 1e3
