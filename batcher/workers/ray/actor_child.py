"""One actor of Ray as supervision has a child: started, loaded, fed with batches, ended.

Each actor has a thread of its own in this process, the child thread, since Ray's own calls may
wait. The child thread takes one thing after the other from one queue: orders of the loop, and
answers of the actor, which a thread of Ray puts there. Beside it an asking thread asks Ray for the
actor, which may take as long as the head of the cluster is away; an order to end is obeyed
meanwhile.

    loop             a batch --> queue --> child thread: collate, call `run` of the actor
    thread of Ray  an answer --> queue --> child thread: split, call `delivered` on the loop

Tensors are direct arguments and direct results. Ray sends small ones along with the call, and puts
those of more than 100 KB into the object store of the node by itself, where the process beside it
reads them without a copy. Refused: to put them there first. It would cost every batch a message
more, and somebody would have to free them.

Results are copied out of the object store. A slow client may hold an answer for minutes, and the
store is small and shared with others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import perf_counter
from typing import Any

import numpy as np

from batcher import __version__
from batcher.batching.batch import Batch
from batcher.batching.worker import CallFromThread, Outcome
from batcher.core.error_text import summary
from batcher.core.ragged import copied
from batcher.core.spec import Array
from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.device_errors import device_error
from batcher.workers.daemon_threads import start_daemon
from batcher.workers.options import WorkerOptions
from batcher.workers.process.child_protocol import Parent
from batcher.workers.process.described_error import DescribedError, rebuild_error
from batcher.workers.process.hook_client import ChildHook
from batcher.workers.process.messages import (
    LoadDone,
    LoadFailed,
    LoadPaused,
    LoadProgress,
    Prepare,
)
from batcher.workers.process.transit import BatchInTransit, timed
from batcher.workers.ray.cluster import Actor, Cluster
from batcher.workers.ray.connection import reason_in
from batcher.workers.ray.hooks import ActorHooks
from batcher.workers.ray.messages import HEAR, RowsDone
from batcher.workers.ray.same_files import contents

LOOK_S = 5.0
"""Seconds without anything to do after which the child thread looks whether the node is there: Ray
tells of no end while the head of the cluster hangs.
"""


class ActorChild:
    """An actor and the thread of this process that serves it; see `Child`.

    Every batch that was sent and not delivered may have begun when the actor is lost: Ray answers
    one batch while the next one begins.
    """

    # These belong to the child thread.
    _actor: Actor | None = None
    _hooks: ActorHooks | None = None
    _how = ""
    """Why the actor ends, in words, once that is decided."""

    _quitting = False
    _answered_at = 0.0

    def __init__(
        self,
        options: WorkerOptions,
        cluster: Cluster,
        prepare: Prepare,
        call_from_thread: CallFromThread,
        parent: Parent,
    ) -> None:
        """Prepare an actor of `cluster`; nothing starts. Reactor thread."""
        self._title = options.title
        self._cluster = cluster
        self._prepare = prepare
        self._call_from_thread = call_from_thread
        self._parent = parent
        self._tasks: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._sent: deque[BatchInTransit] = deque()
        self._last_sent = Event()
        self._thread = Thread(target=self._run, name=options.name, daemon=True)

    def start(self) -> None:
        """Start the thread, which waits for orders. Reactor thread."""
        try:
            self._thread.start()
        except RuntimeError as err:  # no more threads
            how = f"the actor could not be asked for: {err}"
            self._call_from_thread(self._parent.ended, self, how, 0)

    def load(self) -> None:
        """Have an actor asked for, which loads the model. Reactor thread."""
        self._tasks.put(partial(start_daemon, self._ask, f"{self._thread.name}-ask"))

    def run(self, batch: Batch) -> None:
        """Run `batch` after those before it. Reactor thread."""
        self._last_sent.clear()
        self._tasks.put(partial(self._send, BatchInTransit(batch)))

    def let_begin(self, seconds: float) -> None:
        """Wait up to `seconds` until the actor was sent the last batch. Reactor thread."""
        self._last_sent.wait(seconds)

    def quit(self) -> None:
        """End the actor once it has delivered every batch and run its hooks. Reactor thread."""
        self._tasks.put(self._quit)

    def kill(self) -> None:
        """End the actor now. Reactor thread."""
        self._tasks.put(partial(self._end, "the actor was killed"))

    def _run(self) -> None:
        """Do what is to be done until the actor ends. Child thread."""
        try:
            while not self._how:
                self._do_next()
        except Exception as err:  # whatever Ray raises
            self._how = f"the actor could not be had: {summary(err)}"
        if self._hooks is not None:
            self._hooks.end()
        if self._actor is not None:
            with suppress(RuntimeError):  # no more threads; Ray ends what nobody holds on to
                self._actor.kill()
        self._call_from_thread(self._parent.ended, self, self._how, len(self._sent))

    def _do_next(self) -> None:
        """Do what comes next, or look after the actor if nothing comes. Child thread."""
        try:
            task = self._tasks.get(timeout=LOOK_S)
        except Empty:
            if self._actor is not None and self._actor.is_lost():
                self._end(
                    "the actor was lost: Ray's process on this machine has ended, or the "
                    "connection with it"
                )
        else:
            task()

    def _ask(self) -> None:
        """Ask for an actor; Ray ends it at once if there is nobody to take it. Asking thread."""
        try:
            files = contents(self._prepare.definition)
            actor = self._cluster.start(self._title, __version__, self._prepare, files)
        except ModelLoadError as err:
            self._tasks.put(partial(self._end, f"{self._title}: {err}"))
        except Exception as err:  # files that cannot be read, and whatever Ray raises
            self._tasks.put(partial(self._end, f"the actor could not be had: {summary(err)}"))
        else:
            self._tasks.put(partial(self._take, actor))

    def _take(self, actor: Actor) -> None:
        """Order the load, which begins once there is a node for `actor`. Child thread."""
        self._actor = actor
        self._listen(actor)
        takes = self._prepare.settings.on_ray
        self._call_from_thread(self._parent.reported, f"waiting for a node of Ray with {takes}")
        self._once_answered(actor.call("load"), lambda _: None)

    def _quit(self) -> None:
        """End once nothing is left to deliver. Child thread."""
        self._quitting = True
        self._deliver_answered()

    def _hook_left(self) -> None:
        """Have the actor end if it waited for this hook alone. Pool thread."""
        if self._quitting:
            self._tasks.put(self._deliver_answered)

    def _end(self, how: str) -> None:
        """End the actor for the reason `how`, unless it ends already. Child thread."""
        self._how = self._how or how

    def _once_answered(self, call: Future[Any], then: Callable[[Any], object]) -> None:
        """Have the child thread call `then` with the answer; without one the actor is lost.

        Child thread.
        """

        def answered() -> None:
            if (error := call.exception()) is not None:
                self._end(f"the actor was lost: {reason_in(error)}")
            else:
                then(call.result())

        call.add_done_callback(lambda _: self._tasks.put(answered))

    def _listen(self, actor: Actor) -> None:
        """Ask for what the actor tells next. Child thread."""
        self._once_answered(actor.call("hear", group=HEAR), partial(self._heard, actor))

    def _heard(self, actor: Actor, messages: list[object]) -> None:
        """Take what the actor has told. Child thread."""
        for message in messages:
            if isinstance(message, LoadProgress):
                self._call_from_thread(self._parent.reported, message.text)
            elif isinstance(message, LoadPaused):
                self._call_from_thread(self._parent.load_paused)
            elif isinstance(message, LoadFailed):
                self._call_from_thread(self._parent.load_failed, message.reason, message.stage)
                self._end("its model could not be loaded")
            elif isinstance(message, LoadDone):
                self._hooks = hooks = ActorHooks(actor, self._hook_left)
                ways = {name: ChildHook(hooks.run, name) for name in message.hooks}
                self._call_from_thread(self._parent.loaded, message.loaded(ways))
        self._listen(actor)

    def _send(self, task: BatchInTransit) -> None:
        """Put a batch together, and send it. Child thread."""
        task.started = perf_counter()
        self._sent.append(task)
        try:
            inputs = task.batch.collate(lambda name, shape, dtype: np.empty(shape, dtype))
            assert self._actor is not None  # batches come once the model is loaded
            call = self._actor.call("run", inputs, task.batch.rows)
        except Exception as err:  # no memory here, or no room in the store
            error = Outcome([], device_error(err), 0.0, 0.0)
            task.outcome = timed(task, task.started, perf_counter(), error)
            self._deliver_answered()
        else:
            task.collated = perf_counter()
            self._once_answered(call, partial(self._take_answer, task))
        self._last_sent.set()

    def _take_answer(self, task: BatchInTransit, answer: RowsDone | DescribedError) -> None:
        """Take what became of a batch. Child thread."""
        answered, free_at = perf_counter(), self._answered_at
        self._answered_at = answered
        task.outcome = timed(task, free_at, answered, _outcome(task.batch, answer))
        self._deliver_answered()

    def _deliver_answered(self) -> None:
        """Deliver every batch before the first without an outcome.

        Answers of different sizes may overtake each other on their way. Child thread.
        """
        while self._sent and (outcome := self._sent[0].outcome) is not None:
            self._call_from_thread(self._parent.delivered, self._sent.popleft().batch, outcome)
        is_idle = self._quitting and not self._sent
        if is_idle and (self._hooks is None or self._hooks.end_if_idle()):
            self._end("the actor was told to end")


def _outcome(batch: Batch, answer: RowsDone | DescribedError) -> Outcome:
    """Return what became of `batch`, without times. Child thread."""
    if isinstance(answer, DescribedError):
        return Outcome([], rebuild_error(answer), 0.0, 0.0)
    try:
        outputs: dict[str, Array] = {name: copied(each) for name, each in answer.outputs.items()}
        results = batch.split(outputs)
    except (MemoryError, ModelContractError) as err:
        return Outcome([], device_error(err), 0.0, 0.0)
    failed = {row: rebuild_error(error) for row, error in answer.failed.items()}
    return Outcome(results, None, 0.0, 0.0, failed=failed, work=answer.work)
