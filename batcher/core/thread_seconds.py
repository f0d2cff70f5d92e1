"""For how long a thread has worked: the time it ran, and the time it waited for a processor.

The processor time alone tells little on a machine that others use too: a thread that is ready all
the time, and gets a processor for half of it, has no time for more work.
"""

from __future__ import annotations

from time import thread_time

SCHEDULE = "/proc/thread-self/schedstat"
"""Linux: nanoseconds that the calling thread ran, and that it waited to run."""


def thread_seconds(path: str = SCHEDULE) -> float:
    """Return for how many seconds the calling thread has run or waited for a processor.

    Without the file at `path`, that is the time for which the thread has run.
    """
    try:
        with open(path, encoding="ascii") as file:
            ran, waited, *_ = file.read().split()
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):
        return thread_time()
