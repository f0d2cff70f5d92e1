"""A worker whose model runs in a child process, or in an actor of Ray.

What kills or hangs the model ends the child, and a new child takes its place.

This file is the supervision, all of it on the reactor thread; one child with its thread is in
`child_thread.py`, and an actor of Ray, which is a child too, in `ray/actor_child.py`. However a
child ends, the batches that it held come back and the next child starts: at once, then after
growing delays (`restarts.py`). A spare takes over if there is one (`spare.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import uniform

from twisted.internet.defer import Deferred

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, ConditionListener, Deliver, Outcome
from batcher.core.alarm import Alarm
from batcher.errors import DeviceLost, ModelLoadError, WorkerLost
from batcher.models.protocol import LoadedModel
from batcher.workers.begin_wait import BEGIN_WAIT_S, LONG_BATCH_S
from batcher.workers.held_batches import HeldBatches
from batcher.workers.letting_go import let_go
from batcher.workers.load_limit import LoadLimit
from batcher.workers.load_turns import LoadTurn
from batcher.workers.options import LoopSide, WorkerOptions
from batcher.workers.process.child_protocol import Child, Parent
from batcher.workers.process.hook_client import Relays
from batcher.workers.process.restarts import Restarts
from batcher.workers.process.spare import SpareChild

EXIT_TIMEOUT_S = 5.0
"""Seconds for a child to end after its last batch, or after a load that failed: frameworks let go
of a device in one or two.
"""


class _State(Enum):
    """How far the child is that runs the batches of a worker.

    | state | batches | what comes next |
    |---|---|---|
    | LOADING | not taken | READY when the model is loaded, LOST when the child ends before |
    | READY | taken | LOST when the device is lost or the child ends |
    | LOST, also at first | not taken, those held have come back | LOADING in the next child |
    """

    LOADING = "loading"
    READY = "ready"
    LOST = "lost"


class ProcessWorker:
    """A worker in a child process.

    Hooks of the model run in the child, on the object that is loaded there. The pool of this
    process waits for them, through relays that lead to whatever child has the model.
    """

    _deliver: Deliver
    _changed: ConditionListener
    _child: Child | None = None
    """The child that loads the model or runs the batches."""

    _state = _State.LOST
    _quitting = False
    _cause = ""
    """Why the child ends, if that is known before the child has ended."""

    _mean_batch_s = 0.0
    """Seconds that a batch takes, a moving average."""

    def __init__(
        self,
        loop: LoopSide,
        options: WorkerOptions,
        make_child: Callable[[Parent], Child],
        jitter: Callable[[float], float] = lambda delay: delay * uniform(0.5, 1.0),
    ) -> None:
        """Prepare a worker; `jitter` changes delays between restarts, in s. Reactor thread."""
        self._clock, self._title = clock, title = loop.clock, options.title
        self._progress, self._raised = loop.progress, loop.raised
        hangs = f"a batch has run for more than {options.watchdog_s:g} s"
        self._held = HeldBatches(clock, options.watchdog_s, lambda: self._kill(hangs))
        self._load_limit = LoadLimit(clock, title, options.load_timeout_s, self._loads_too_long)
        self._turns, self._turn = loop.turns, LoadTurn(loop.turns)
        self.load_paused = self._turn.end  # others load while this load waits
        self._restarts, spare_restarts = Restarts(jitter), Restarts(jitter)
        self._next_child = Alarm(clock, self._begin_child)
        self._exit_limit = Alarm(clock, self._kill)
        self._keeps_spare = options.keeps_spare
        self._spare = SpareChild(
            clock, spare_restarts, lambda: make_child(self), lambda: self._state is _State.READY
        )
        self._relays = Relays()
        self._loaded: Deferred[LoadedModel] = Deferred()
        self._ended: Deferred[None] = Deferred()

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Start a child and load the model in it. Reactor thread."""
        self._deliver = deliver
        self._changed = changed
        self._begin_child()
        return self._loaded

    def do(self, batch: Batch) -> None:
        """Hand over `batch`. Reactor thread."""
        if self._quitting or self._child is None or self._state is not _State.READY:
            raise RuntimeError("the worker takes no batches")
        self._held.add(batch)
        self._child.run(batch)

    def linger(self) -> None:
        """Wait for nothing: the batch and the loop run side by side. Reactor thread."""

    def let_begin(self) -> None:
        """Wait for the batch handed over last to be put together, if batches are long.

        Reactor thread.
        """
        if self._mean_batch_s > LONG_BATCH_S and self._child is not None:
            self._child.let_begin(BEGIN_WAIT_S)

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end; a child that loads is killed.

        Reactor thread.
        """
        if not self._quitting:
            self._quitting = True
            self._next_child.cancel()
            self._spare.quit()
            if self._child is not None and self._state is _State.READY:
                self._child.quit()
                self._limit_exit()
            else:
                self._turn.end()
                self._kill("it was told to end")
            self._check_ended()
        return self._ended

    def reported(self, text: str) -> None:
        """Pass on what the child does while the model loads. Reactor thread."""
        self._progress(text)

    def loaded(self, loaded: LoadedModel) -> None:
        """Take batches. Reactor thread."""
        self._load_limit.end()
        self._turn.end()
        if self._quitting:
            return  # the child was killed while it loaded
        self._state = _State.READY
        self._restarts.loaded(self._clock.seconds())
        if self._keeps_spare:
            # Spares import a framework each: models that still load must not wait for that.
            self._turns.once_idle(self._spare.prepare)
        loaded = self._relays.relayed(loaded)
        if not self._loaded.called:
            self._loaded.callback(loaded)
        else:
            self._changed(Condition.ALIVE, "")

    def load_failed(self, reason: str, stage: str) -> None:
        """Remember until the child has ended why the model cannot be loaded. Reactor thread."""
        self._cause = reason
        self._exit_limit.set(self._clock.seconds() + EXIT_TIMEOUT_S)
        if stage:
            self._raised(stage)

    def delivered(self, batch: Batch, outcome: Outcome) -> None:
        """Take back the oldest batch. Reactor thread."""
        if self._state is _State.LOST:
            return  # the batch has come back as lost
        self._held.remove_oldest()
        self._mean_batch_s += 0.1 * (outcome.compute - self._mean_batch_s)
        if isinstance(outcome.error, DeviceLost):
            reason = f"its device is lost: {outcome.error}"
            # First: whoever gets the batch back must not hand over another.
            self._stop(reason)
            self._kill()
            self._deliver(batch, outcome)
            # A child whose device is lost ends by itself, and begins no other batch.
            self._give_back(reason, 0)
            return
        self._restarts.delivered()
        self._limit_exit()
        self._deliver(batch, outcome)

    def ended(self, child: Child, how: str, begun: int) -> None:
        """Give back the batches that `child` held, and replace it. Reactor thread."""
        if child is self._spare.child:
            self._spare.ended()
        else:
            self._child = None
            self._exit_limit.cancel()
            self._load_limit.end()
            self._turn.end()
            reason, self._cause = self._cause or how, ""
            self._child_ended(reason, begun)
        self._check_ended()

    def _child_ended(self, reason: str, begun: int) -> None:
        """Fail the first load, or give the batches back and restart. Reactor thread."""
        if not self._loaded.called:
            says_all = reason.startswith(self._title)
            self._fail_load(reason if says_all else f"{self._title}: {reason}, while it loaded")
            return
        # A child that ends after the order to quit, with nothing left to run, is no news.
        if self._state is not _State.LOST and (self._held or not self._quitting):
            self._stop(reason)
        self._give_back(reason, begun)
        if not self._quitting:
            self._next_child.set(self._clock.seconds() + self._restarts.delay())

    def _fail_load(self, reason: str) -> None:
        """Tell why the model cannot be loaded the first time, and quit. Reactor thread."""
        self._quitting = True
        self._loaded.errback(ModelLoadError(reason))

    def _begin_child(self) -> None:
        """Load the model in the spare, or in a new child. Reactor thread."""
        self._state = _State.LOADING
        self._child = child = self._spare.take()

        def load() -> None:
            self._load_limit.begin()
            child.load()

        # A restart takes no turn: its memory was the model's before, and requests wait.
        if self._loaded.called:
            load()
        else:
            self._turn.wait(load)

    def _loads_too_long(self, reason: str) -> None:
        """Give up the load that runs. Reactor thread."""
        self._kill(reason)
        self._turn.end()
        if not self._loaded.called:
            # At once: a child may be stuck where not even a signal ends it.
            self._fail_load(reason)

    def _kill(self, cause: str = "") -> None:
        """Kill the child, if there is one, and remember the `cause`. Reactor thread."""
        self._cause = cause or self._cause
        if self._child is not None:
            self._child.kill()

    def _limit_exit(self) -> None:
        """Have the child killed if it does not end soon after its last batch. Reactor thread."""
        if self._quitting and not self._held:
            self._exit_limit.set(self._clock.seconds() + EXIT_TIMEOUT_S)

    def _stop(self, reason: str) -> None:
        """Tell that no more batches are taken, and why. Reactor thread."""
        self._state = _State.LOST
        self._held.rest()
        self._restarts.ended(self._clock.seconds())
        is_dead = self._quitting or self._restarts.counts_as_dead
        self._changed(Condition.DEAD if is_dead else Condition.RESTARTING, reason)

    def _give_back(self, reason: str, begun: int) -> None:
        """Deliver all batches as lost; the first `begun` may have begun. Reactor thread."""
        for number, batch in enumerate(self._held.remove_all()):
            lost = WorkerLost(f"the worker was lost: {reason}", begun=number < begun)
            self._deliver(batch, Outcome([], lost, 0.0, 0.0))

    def _check_ended(self) -> None:
        """Tell that the worker has ended, if no child is left. Reactor thread."""
        if self._ended.called or not self._quitting:
            return
        if self._child is None and self._spare.child is None:
            self._held.stop()
            self._load_limit.stop()
            self._exit_limit.end()
            self._next_child.end()
            let_go(self, "_spare", "_progress", "_raised", "_deliver", "_changed")
            self._ended.callback(None)
