"""How one model's requests are scheduled, apart from queue and policy."""

from __future__ import annotations

from typing import NamedTuple


class SchedulerOptions(NamedTuple):
    """The settings of one scheduler.

    Attributes:
        version: version of the model, named in answers.
        pipeline_depth: most batches that one worker holds, the running one included.
        timeout: seconds from arrival to deadline for a request that names no deadline.
        default_level: priority of a request that names none; 1 is the highest.
        isolate: whether a batch that raised is halved until the requests at fault stand alone.
        retry_on_crash: whether a batch runs once more if its worker ended while it ran.
        max_wait: most seconds that a free worker waits for clients that return; 0 never waits.
        remember_failed_s: seconds for which requests that fail alone are remembered; 0 for none.
    """

    version: str = "1"
    pipeline_depth: int = 2
    timeout: float = 30.0
    default_level: int = 1
    isolate: bool = False
    retry_on_crash: bool = False
    max_wait: float = 0.0
    remember_failed_s: float = 0.0


DEFAULT_OPTIONS = SchedulerOptions()
