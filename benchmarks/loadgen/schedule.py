"""When requests are due, and the alarm that wakes the generator up for them.

A schedule is an endless iterator of due times, in seconds after the start. A schedule knows no
clock, so the same seed gives the same schedule.

The alarm is a `timerfd` that the loop watches, set for the next due time. Measured before the
choice: 10,000 Poisson requests/s of 256 bytes for 5 s, on two shared cores with an echo server on
the other core. `core` is the share of a core that the generator took.

| | wake-up | runs | lag p50 | lag p99 | core |
|---|---|---|---|---|---|
| a | loop timer of at least 1 ms | 9 | 0.4 to 0.6 ms | 1.1 to 3.3 ms | 0.16 |
| b | loop timer as it rounds itself | 2 | 0.001 ms | 0.5 ms | 0.93 |
| c | `call_soon` until due | 2 | 0.001 ms | 0.03 ms | 1.00 |
| d | loop timer, then `call_soon` for 1 to 2 ms | 2 | 0.001 ms | 0.02 ms | 1.00 |
| e | timerfd 60 us early, then spin | 2 | 0.000 ms | 0.03 ms | 0.58 |
| f | timerfd | 12 | 0.03 ms | 0.08 to 0.13 ms, once 1.3 | 0.35 |

Chosen: f. Refused: a, because 0.5 ms would be in every latency; b, because a timer below 0.5 ms
rounds to 0 and spins; c, because it takes a core from the server under test; d, because at this
rate it is the same as c; e, because 0.03 ms less lag are not worth 0.2 of a core.

Beside two processes that never rest (a server that uses every core) no wake-up keeps to 2 ms: lag
p99 is 4.0 to 7.5 ms for the timerfd, and 11.4 to 11.8 ms for the wake-ups that spin, because the
kernel does not prefer a process that never sleeps. A higher priority helps too little (1.5 to 2.6
ms at nice -20), SCHED_FIFO does help (0.04 ms): hence `--realtime`.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
from collections.abc import Callable, Iterator

import numpy as np

_GAPS_PER_DRAW = 1024  # drawing them takes 25 us, far below the lag that is allowed
_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


def constant(rate: float) -> Iterator[float]:
    """Yield due times in seconds, `1 / rate` apart, from 0.

    The times are multiplied, not added up, so that no rounding error grows.
    """
    number = 0
    while True:
        yield number / rate
        number += 1


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Yield due times in seconds of a Poisson process of `rate` a second: independent users.

    The same `seed` gives the same times.
    """
    rng = np.random.default_rng(seed)
    last = 0.0
    while True:
        times = last + np.cumsum(rng.exponential(1.0 / rate, _GAPS_PER_DRAW))
        last = float(times[-1])
        yield from times.tolist()


class Timespec(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Itimerspec(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (("interval", Timespec), ("value", Timespec))


class Alarm:
    """Calls `ring(now)` at the time set, and sets itself for the time that `ring` returns.

    Times are of `clock`, which must be CLOCK_MONOTONIC in seconds; infinity is never. Setting
    clears what has expired, so the descriptor is never read. Python 3.11 has no timerfd, hence
    ctypes (1 us a call). Linux only. Loop thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """Store the arguments; `start` makes the timer."""
        self._loop = loop
        self._clock = clock
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = Itimerspec()
        self._value = self._spec.value
        self._reference = ctypes.byref(self._spec)
        self._descriptor = -1
        self._ring: Callable[[float], float]

    def start(self, ring: Callable[[float], float], first: float) -> None:
        """Ring at `first` and then as `ring` says. Raises `OSError` where timers cannot be had."""
        self._ring = ring
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop.add_reader(self._descriptor, self._expired)
        self._set(first)

    def stop(self) -> None:
        """Ring no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _expired(self) -> None:
        self._set(self._ring(self._clock()))

    def _set(self, when: float) -> None:
        value = self._value
        value.seconds, value.nanoseconds = split_time(when)
        self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, self._reference, None)


def split_time(when: float) -> tuple[int, int]:
    """Seconds and nanoseconds of a time; (0, 0), which disarms a timer, for never."""
    if when == math.inf:
        return 0, 0
    seconds = int(when)
    return seconds, int((when - seconds) * 1e9)
