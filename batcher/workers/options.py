"""What every worker with a thread of its own is made with, whatever runs the model."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread
from batcher.models.protocol import Progress
from batcher.workers.load_turns import LoadTurns


class LoopSide(NamedTuple):
    """What a worker uses of the reactor's loop.

    Attributes:
        progress: hears in words what is being done while the model loads. Reactor thread.
        call_from_thread: calls a function on the reactor thread, soon. Any thread.
        clock: measures how long loads and batches take. Reactor thread.
        turns: says when a load may begin. Reactor thread.
        raised: hears the stage of a load in which the model's own code raised. Reactor thread.
    """

    progress: Progress
    call_from_thread: CallFromThread
    clock: IReactorTime
    turns: LoadTurns
    raised: Callable[[str], None] = lambda stage: None


class WorkerOptions(NamedTuple):
    """The names and time limits of one worker.

    Attributes:
        name: name of the worker's threads.
        title: the model as error texts name it, `model 'm' version 1`.
        watchdog_s: seconds after which a batch is given up; infinity gives up none.
        load_timeout_s: seconds after which a load is given up; 0 gives up none.
        keeps_spare: of a model in another process: whether one more process stands by.
    """

    name: str
    title: str = "the model"
    watchdog_s: float = inf
    load_timeout_s: float = 0.0
    keeps_spare: bool = True
