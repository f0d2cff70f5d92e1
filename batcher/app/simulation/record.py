"""What became of each request, in plain arrays: a million requests take 30 MB."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import inf, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batcher.app.simulation.devices import SimulatedDevice
from batcher.app.simulation.result import About, Floats, Result, latency
from batcher.core.counters import ModelMetrics

UNANSWERED, ANSWERED, REFUSED, DROPPED = range(4)


class Moment(NamedTuple):
    """The counters of the server at one moment."""

    time: float
    busy: float
    rows: float
    flushes: Mapping[str, int]
    real_elements: int = 0
    padded_elements: int = 0


class Record:
    """The fates of all requests of a run.

    Attributes:
        open: requests that have not ended.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.open = 0
        self._sent = array("d")
        self._ended = array("d")
        self._allowed = array("d")
        self._rows = array("l")
        self._levels = array("l")
        self._fates = bytearray()
        self._first = 0
        self._begin = self._end = Moment(0.0, 0.0, 0.0, {})

    def __len__(self) -> int:
        """How many requests were sent."""
        return len(self._sent)

    @property
    def last_sent(self) -> float:
        """Time at which the last request was sent; 0 before the first."""
        return self._sent[-1] if self._sent else 0.0

    def send(self, now: float, rows: int, allowed: float | None, level: int) -> int:
        """Note a request that is sent now; return its number."""
        self.open += 1
        self._sent.append(now)
        self._ended.append(nan)
        self._allowed.append(inf if allowed is None else allowed)
        self._rows.append(rows)
        self._levels.append(level)
        self._fates.append(UNANSWERED)
        return len(self._sent) - 1

    def end(self, number: int, time: float, fate: int) -> None:
        """Note that a request ends at `time`."""
        self.open -= 1
        self._ended[number] = time
        self._fates[number] = fate

    def begin_window(self, moment: Moment) -> None:
        """Count requests from the next one on."""
        self._first, self._begin = len(self._sent), moment

    def end_window(self, moment: Moment) -> None:
        """Count what has ended by now."""
        self._end = moment

    def times(self) -> tuple[Floats, Floats]:
        """Return when each request was sent, and when it ended; NaN for one without an answer."""
        answered = np.frombuffer(self._fates, np.uint8) == ANSWERED
        return np.array(self._sent), np.where(answered, np.array(self._ended), nan)

    def result(self, about: About) -> Result:
        """Return the numbers of the run."""
        first, begin, end = self._first, self._begin, self._end
        sent, ended = np.frombuffer(self._sent), np.frombuffer(self._ended)
        rows, fates = np.frombuffer(self._rows, np.int_), np.frombuffer(self._fates, np.uint8)
        waits, answered = ended - sent, fates == ANSWERED
        within = answered & (ended >= begin.time) & (ended <= end.time)
        in_time = within & (waits <= np.frombuffer(self._allowed))
        seconds = max(end.time - begin.time, 1e-12)
        batches, reasons = _batches(begin, end)
        return Result(
            *about,
            offered=float(rows[first:].sum() / seconds),
            answered=float(rows[within].sum() / seconds),
            goodput=float(rows[in_time].sum() / seconds),
            latency=latency(waits[first:][answered[first:]]),
            mean_batch=(end.rows - begin.rows) / batches,
            busy=min((end.busy - begin.busy) / seconds / about.devices, 1.0),
            refused=_share(fates[first:] == REFUSED),
            dropped=_share(fates[first:] == DROPPED),
            reasons=reasons,
            levels=self._by_level(first, waits, answered),
            requests=len(sent),
            padding=_padding(begin, end),
        )

    def _by_level(self, first: int, waits: Floats, answered: NDArray[np.bool_]) -> dict[int, float]:
        levels = np.frombuffer(self._levels, np.int_)[first:][answered[first:]]
        found, waits = np.unique(levels).tolist(), waits[first:][answered[first:]]
        if len(found) < 2:
            return {}
        return {int(level): float(waits[levels == level].mean()) for level in found}


def moment(now: float, devices: list[SimulatedDevice], metrics: ModelMetrics) -> Moment:
    """Return the counters of a server at the time `now`."""
    busy = sum(device.busy for device in devices)
    elements = metrics.real_elements, metrics.padded_elements
    return Moment(now, busy, metrics.batch_size.total, dict(metrics.flushes), *elements)


def _batches(begin: Moment, end: Moment) -> tuple[int, dict[str, float]]:
    """Return the batches between two moments, 1 at least, and the share of each flush reason."""
    flushes = {key: n - begin.flushes.get(key, 0) for key, n in end.flushes.items()}
    batches = max(sum(flushes.values()), 1)
    return batches, {key: n / batches for key, n in sorted(flushes.items()) if n}


def _padding(begin: Moment, end: Moment) -> float:
    real = end.real_elements - begin.real_elements
    return (end.padded_elements - begin.padded_elements) / real if real else nan


def _share(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0
