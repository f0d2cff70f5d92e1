"""What a front process counts, on its way to the engine, which shows the numbers of all processes.

A front adds up its answers by itself and sends what has come to them twice a second, and before it
asks for `/metrics`. A message for each answer would cost the engine more than the answer did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from batcher.frontends.link.frames import Message
from batcher.frontends.link.messages import COUNTS
from batcher.serving.metrics import ServerMetrics

COUNTS_INTERVAL_S = 0.5
"""Seconds between two reports of a front: numbers on `/metrics` are late by as much at most."""


class Gauges(NamedTuple):
    """What a front has at the moment, as in ServerMetrics and FetchCounts."""

    connections: int = 0
    buffer_bytes: int = 0
    kept: int = 0


class FrontCounts:
    """What a front has counted and not told the engine yet. Reactor thread."""

    def __init__(self, metrics: ServerMetrics) -> None:
        """Take what `metrics` count from now on."""
        self._metrics = metrics
        self._told: Mapping[str, int] = {}  # what outputs had dropped at the last call

    def take(self) -> Message:
        """Return what has come since the last call, as a message."""
        metrics = self._metrics
        answers = [
            (model, route, dict(each.statuses), each.latency.counts, each.latency.total)
            for (model, route), each in metrics.answers.items()
        ]
        metrics.answers.clear()
        fetches = metrics.fetches
        files, nbytes = dict(fetches.outcomes), fetches.nbytes
        fetches.outcomes.clear()
        fetches.nbytes = 0
        gauges = (metrics.connections, metrics.buffer_bytes, fetches.kept)
        return COUNTS, answers, self._take_dropped(), files, nbytes, gauges

    def _take_dropped(self) -> dict[str, int]:
        """Return how many lines were dropped since the last call, by output."""
        metrics = self._metrics
        found = Counter(metrics.dropped_lines)
        metrics.dropped_lines.clear()
        totals = metrics.dropped_by_outputs()
        found.update(totals)
        found.subtract(self._told)
        self._told = totals
        return dict(+found)


def add_counts(metrics: ServerMetrics, message: Message) -> Gauges:
    """Add what a front has counted to `metrics`, and return what the front has at the moment."""
    _, answers, dropped, files, nbytes, gauges = message
    for model, route, statuses, counts, total in answers:
        found = metrics.answers[model, route]
        for status, number in statuses.items():
            found.statuses[status] += number
        latency = found.latency
        latency.counts = [old + new for old, new in zip(latency.counts, counts, strict=True)]
        latency.total += total
    for output, number in dropped.items():
        metrics.dropped_lines[output] += number
    outcomes = metrics.fetches.outcomes
    for outcome, number in files.items():
        outcomes[outcome] = outcomes.get(outcome, 0) + number
    metrics.fetches.nbytes += nbytes
    return Gauges(*gauges)


def show_gauges(metrics: ServerMetrics, gauges: list[Gauges]) -> None:
    """Have `metrics` show the sums of what all fronts have."""
    metrics.connections = sum(each.connections for each in gauges)
    metrics.buffer_bytes = sum(each.buffer_bytes for each in gauges)
    metrics.fetches.kept = sum(each.kept for each in gauges)
