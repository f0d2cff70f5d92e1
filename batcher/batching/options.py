"""How one model's requests are scheduled, apart from queue and policy."""

from __future__ import annotations

from typing import NamedTuple


class SchedulerOptions(NamedTuple):
    """What a scheduler is told once, when it is made.

    Attributes:
        version: of the model, named in answers.
        places: batches a worker may hold.
        timeout: seconds until a request is worthless that names no time of its own.
        default_level: priority of a request that names none.
        isolate: whether a batch that raised is halved until the requests at fault stand alone.
        remembered: seconds for which requests that fail alone are remembered.
        retry: whether a batch that was interrupted by its worker's end is run once more.
    """

    version: str = "1"
    places: int = 2
    timeout: float = 30.0
    default_level: int = 1
    isolate: bool = False
    retry: bool = False
    remembered: float = 0.0


DEFAULTS = SchedulerOptions()
