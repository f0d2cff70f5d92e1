"""What a simulated run has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class About(NamedTuple):
    """What a run was.

    Attributes:
        load: how the load is written.
        policy: how the policy is written.
        drop: what became of late requests.
        capacity: rows/s of all devices in full batches.
        devices: number of devices.
    """

    load: str
    policy: str
    drop: str
    capacity: float
    devices: int


class Latency(NamedTuple):
    """Seconds from the sending of requests to their answers; NaN if nothing was answered.

    Attributes:
        mean: the mean.
        p50: the median.
        p99: what 99 of 100 answers do not exceed.
        longest: the maximum.
    """

    mean: float
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Result:
    """The numbers of one run. Rates are rows/s, times are seconds.

    Rates and batches are those between the sending of the first request after the warm-up and that
    of the last one. Latencies and shares are those of the requests sent in that time.

    Attributes:
        load: as in `About`, and so are the next four.
        offered: rows that were sent.
        answered: rows that were answered.
        goodput: rows that were answered in time; all of them where there are no deadlines.
        latency: latency of the answers.
        mean_batch: mean rows of the batches.
        busy: share of the time in which a device ran, mean over devices.
        refused: share of the requests that were refused when they came.
        dropped: share of the requests that were dropped later.
        reasons: share of the batches by their flush reason.
        levels: mean latency by level, where requests have several.
        requests: requests of the run, warm-up included.
        padding: elements of all batches over those without the padding; NaN where rows are not
            padded.
    """

    load: str
    policy: str
    drop: str
    capacity: float
    devices: int
    offered: float
    answered: float
    goodput: float
    latency: Latency
    mean_batch: float
    busy: float
    refused: float
    dropped: float
    reasons: Mapping[str, float]
    levels: Mapping[int, float]
    requests: int
    padding: float = nan


def latency(values: Floats) -> Latency:
    """Return mean, median, 99th percentile and maximum of `values`."""
    if not len(values):
        return Latency(nan, nan, nan, nan)
    middle, high = np.percentile(values, [50, 99])
    return Latency(float(values.mean()), float(middle), float(high), float(values.max()))
