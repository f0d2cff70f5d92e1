"""A job on a reactor of its own, from the load of the model to the end of the job."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Protocol

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.app.jobs.opening import Opened
from batcher.app.jobs.screen import JobScreen
from batcher.app.loop import install_reactor
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array
from batcher.serving.jobs.answering import Answering
from batcher.serving.jobs.job import Job, Shape
from batcher.serving.jobs.writing import Progress
from batcher.workers.pool import CpuPool

SHOW_S = 0.5
"""Seconds between two looks at how far a job is."""


class Answers(Protocol):
    """Answers the requests of a job. Reactor thread.

    Attributes:
        patience: seconds for which it may be away before the job ends.
    """

    patience: float

    def load(self) -> Deferred[None]:
        """Get ready; fails with the reason why that cannot be."""

    def infer(self, inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
        """Answer one request."""

    def stop(self) -> Deferred[None]:
        """End."""


Make = Callable[[AsyncioSelectorReactor, asyncio.AbstractEventLoop], Answers]


class JobRun:
    """Runs one job. Main thread.

    Attributes:
        rate_text: how fast it was, for the end of a line; empty if it was too short to say.
    """

    def __init__(self, title: str, make: Make, shape: Shape, opened: Opened) -> None:
        """Run nothing yet; `title` names the model, and `make` makes what answers."""
        self._title = title
        self._loop = uvloop.new_event_loop()
        self._reactor = install_reactor(self._loop)
        self._answers = make(self._reactor, self._loop)
        self._job = self._made_job(shape, opened)
        self._opened = opened
        self._screen = JobScreen(opened.output.progress)
        self.rate_text = ""
        self._ended: list[Progress | Failure] = []
        self._stops = False

    def _made_job(self, shape: Shape, opened: Opened) -> Job:
        call, reactor = self._loop.call_soon_threadsafe, self._reactor
        read, write = (CpuPool(1, 4, 1, call, reactor, name) for name in ("job-read", "job-write"))
        answering = Answering(self._answers.infer, reactor, self._answers.patience)
        return Job(opened.reader, opened.output, answering, shape, (read, write), reactor)

    def run(self) -> Progress:
        """Return how far the job has come. Raises what keeps it from going on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._stop)
        self._reactor.callWhenRunning(self._begin)
        self._reactor.run(installSignalHandlers=False)  # type: ignore[no-untyped-call]  # Twisted
        (result,) = self._ended
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def _begin(self) -> None:
        self._screen.say(f"{self._title} …")
        ran = maybeDeferred(self._answers.load).addCallback(self._loaded)
        ran.addBoth(self._ended.append).addBoth(lambda _: self._answers.stop())
        ran.addBoth(lambda _: self._reactor.stop())

    def _loaded(self, _: None) -> Deferred[Progress]:
        if self._stops:
            return succeed(self._job.progress)
        self._screen.begin()
        self._show()
        return self._job.run().addBoth(self._shown)

    def _show(self) -> None:
        self._screen.show(self._job.progress)
        clock: IReactorTime = self._reactor
        self._timer = clock.callLater(SHOW_S, self._show)

    def _shown(self, result: Progress | Failure) -> Progress | Failure:
        self._timer.cancel()
        self.rate_text = self._screen.end(self._job.progress)
        return result

    def _stop(self) -> None:
        self._stops = True
        self._job.stop()
        self._opened.give_up()
