"""A worker whose model runs in a child process.

What kills or hangs the model ends the child, and a new one takes its place.

This is the supervision, all of it on the reactor thread; a life of the child, with its thread, is
in `life.py`. However a life ends, what it held comes back and the next begins: at once, then after
growing delays. A spare, a child that has imported what the model needs and waits, takes over, so
that a restart takes as long as the model takes to load. A spare that ends is replaced in the same
way.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from random import uniform

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from batcher.batching.batch import Batch
from batcher.batching.worker import CallFromThread, Changed, Condition, Deliver, Outcome
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.alarm import Alarm
from batcher.errors import DeviceLost, ModelLoadError, WorkerLost
from batcher.models.protocol import Loaded, Progress
from batcher.workers.load_limit import LoadLimit
from batcher.workers.process.child_protocol import Child, Parent
from batcher.workers.process.life import Life
from batcher.workers.process.restarts import Restarts
from batcher.workers.thread import HANDOVER, LONG
from batcher.workers.watchdog import Watchdog

LAST_SECONDS = 5.0
"""Seconds for a child to end after its last batch: frameworks let go of a device in one or two."""


class ProcessWorker:
    """A worker in a child process, on Linux.

    Hooks of the model run in this process, on an object that is made here and neither loaded nor
    given weights.
    """

    def __init__(
        self,
        name: str,
        definition: ModelDefinition,
        settings: ModelSettings,
        progress: Progress,
        call_from_thread: CallFromThread,
        clock: IReactorTime,
        give_birth: Callable[[Parent], Child] | None = None,
        jitter: Callable[[float], float] = lambda delay: delay * uniform(0.5, 1.0),
    ) -> None:
        """Prepare a worker.

        Args:
            name: what its threads are called.
            definition: what the model is.
            settings: how it is run; `watchdog_s` and `load_timeout_s` say after how many seconds a
                batch or a load is given up.
            progress: told, on the reactor thread, what is being done.
            call_from_thread: the way back.
            clock: measures how long loading takes, batches run and restarts wait.
            give_birth: makes a child; by default a real one.
            jitter: changes delays between restarts, in seconds.
        """
        self._give_birth = give_birth or (
            lambda parent: Life(name, definition, settings, call_from_thread, parent)
        )
        self._title = f"model {definition.spec.name!r} version {definition.spec.version}"
        self._progress = progress
        self._clock = clock
        self._held: deque[Batch] = deque()  # handed over and not delivered
        self._limit = settings.watchdog_s
        self._watchdog = Watchdog(clock, settings.watchdog_s, self._hangs)
        self._load_limit = LoadLimit(
            clock, self._title, settings.load_timeout_s, self._loads_too_long
        )
        self._restarts, self._spare_restarts = Restarts(jitter), Restarts(jitter)
        self._next_birth = Alarm(clock, self._begin_life)
        self._next_spare = Alarm(clock, self._have_spare)
        self._end_of_patience = Alarm(clock, self._kill)
        self._life: Child | None = None
        self._spare: Child | None = None
        self._takes_batches = self._quitting = False
        self._stopped = True  # whether it was told that this life takes no batches any more
        self._cause = ""  # why the life ends, if that is known before it has ended
        self._usual = 0.0  # seconds of a batch, a moving average
        self._loaded: Deferred[Loaded] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._deliver: Deliver
        self._changed: Changed

    def start(self, deliver: Deliver, changed: Changed) -> Deferred[Loaded]:
        """Start a child and load the model in it. Reactor thread."""
        self._deliver = deliver
        self._changed = changed
        if sys.platform != "linux":
            self._quitting = True
            self._check_ended()
            return fail(
                ModelLoadError(
                    f"{self._title}: expected Linux for `worker: process`; this is {sys.platform}"
                )
            )
        self._begin_life()
        return self._loaded

    def do(self, batch: Batch) -> None:
        """Hand over `batch`. Reactor thread."""
        if self._quitting or self._life is None or not self._takes_batches:
            raise RuntimeError("the worker takes no batches")
        if not self._held:
            self._watchdog.begin()
        self._held.append(batch)
        self._life.run(batch)

    def linger(self) -> None:
        """Wait for nothing: the batch and the loop run side by side. Reactor thread."""

    def let_begin(self) -> None:
        """Wait for the batch handed over last to be put together, if it is a long one.

        Reactor thread.
        """
        if self._usual > LONG and self._life is not None:
            self._life.let_begin(HANDOVER)

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end; a child that loads is killed.

        Reactor thread.
        """
        if not self._quitting:
            self._quitting = True
            self._next_birth.cancel()
            self._next_spare.cancel()
            if self._spare is not None:
                self._spare.kill()
            if self._life is not None and self._takes_batches:
                self._life.quit()
                self._expect_end()
            else:
                self._cause = "it was told to end"
                self._kill()
            self._check_ended()
        return self._ended

    def reported(self, text: str) -> None:
        """Pass on what the child does while it loads. Reactor thread."""
        self._progress(text)

    def loaded(self, loaded: Loaded) -> None:
        """Take batches. Reactor thread."""
        self._load_limit.end()
        if self._quitting:
            return
        self._takes_batches = True
        self._restarts.ready(self._clock.seconds())
        self._have_spare()
        if not self._loaded.called:
            self._loaded.callback(loaded)
        else:
            self._changed(Condition.ALIVE, "")

    def refused(self, reason: str) -> None:
        """Remember why the model cannot be loaded until the life has ended. Reactor thread."""
        self._cause = reason

    def delivered(self, batch: Batch, outcome: Outcome) -> None:
        """Take back the oldest batch. Reactor thread."""
        if self._stopped:
            return  # it was given back
        self._held.popleft()
        self._usual += 0.1 * (outcome.compute - self._usual)
        if isinstance(outcome.error, DeviceLost):
            reason = f"its device is lost: {outcome.error}"
            self._stop(reason)
            self._kill()
            self._deliver(batch, outcome)
            self._give_back(reason, 0)  # the child has ended of itself, and begun no other
            return
        self._restarts.delivered()
        if self._held:
            self._watchdog.begin()
        else:
            self._watchdog.rest()
            self._expect_end()
        self._deliver(batch, outcome)

    def ended(self, life: Child, how: str, begun: int) -> None:
        """Give back what the child held, and start it again. Reactor thread."""
        if life is self._spare:
            self._spare = None
            self._spare_ended()
        else:
            self._life = None
            self._load_limit.end()
            reason, self._cause = self._cause or how, ""
            self._life_ended(reason, begun)
        self._check_ended()

    def _spare_ended(self) -> None:
        if not self._quitting:
            self._spare_restarts.ended(self._clock.seconds())
            self._next_spare.set(self._clock.seconds() + self._spare_restarts.delay())

    def _life_ended(self, reason: str, begun: int) -> None:
        if not self._loaded.called:
            self._refuse(
                reason
                if reason.startswith(self._title)
                else f"{self._title}: {reason}, while it loaded"
            )
            return
        if not self._stopped and (self._held or not self._quitting):
            self._stop(reason)
        self._give_back(reason, begun)
        if not self._quitting:
            self._next_birth.set(self._clock.seconds() + self._restarts.delay())

    def _refuse(self, reason: str) -> None:
        """Tell why the model cannot be loaded the first time; there is no second."""
        self._quitting = True
        self._loaded.errback(ModelLoadError(reason))

    def _begin_life(self) -> None:
        self._stopped = False
        self._life, self._spare = self._spare or self._born(), None
        self._load_limit.begin()
        self._life.load(with_hooks=not self._loaded.called)

    def _have_spare(self) -> None:
        if (
            self._spare is None and self._takes_batches
        ):  # a life that loads has one when it is loaded
            self._spare = self._born()
            self._spare_restarts.ready(self._clock.seconds())

    def _born(self) -> Child:
        child = self._give_birth(self)
        child.start()
        return child

    def _hangs(self) -> None:
        self._cause = f"a batch has run for more than {self._limit:g} s"
        self._kill()

    def _loads_too_long(self, reason: str) -> None:
        self._cause = reason
        self._kill()
        if not self._loaded.called:
            self._refuse(
                reason
            )  # now: where the hooks hang, in this process, the life does not end

    def _kill(self) -> None:
        if self._life is not None:
            self._life.kill()

    def _expect_end(self) -> None:
        if self._quitting and not self._held:
            self._end_of_patience.set(self._clock.seconds() + LAST_SECONDS)

    def _stop(self, reason: str) -> None:
        """Tell that no more batches are taken, and why."""
        self._takes_batches, self._stopped = False, True
        self._watchdog.rest()
        self._restarts.ended(self._clock.seconds())
        given_up = self._quitting or self._restarts.hopeless
        self._changed(Condition.DEAD if given_up else Condition.RESTARTING, reason)

    def _give_back(self, reason: str, begun: int) -> None:
        """Deliver what the child had not done; it may have begun so many of them."""
        held, self._held = self._held, deque()
        for number, batch in enumerate(held):
            lost = WorkerLost(f"the worker was lost: {reason}", begun=number < begun)
            self._deliver(batch, Outcome([], lost, 0.0, 0.0))

    def _check_ended(self) -> None:
        if self._quitting and self._life is None and self._spare is None and not self._ended.called:
            self._watchdog.stop()
            self._end_of_patience.cancel()
            self._ended.callback(None)
