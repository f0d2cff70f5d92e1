"""One life of a child, on a thread of its own.

It is started, loads the model, runs batches, ends and is waited for.

The thread waits for the loop and for the child at once. It puts the next batch together while the
child computes the one before, so the child finds it when it is done. Whoever has the child killed
does not wait for the thread, which may be waiting for the rest of a message.
"""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from collections.abc import Mapping
from enum import Enum
from itertools import count
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread
from time import perf_counter

from batcher.batching.batch import Batch
from batcher.batching.worker import CallFromThread, Outcome
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.device_errors import device_error
from batcher.models.loading import make_hooks
from batcher.models.protocol import Loaded
from batcher.workers.process.child_process import ChildProcess, group_signals
from batcher.workers.process.child_protocol import Parent
from batcher.workers.process.messages import (
    Doing,
    Done,
    Failed,
    Load,
    Prepare,
    Ready,
    Refused,
    Run,
    send,
)
from batcher.workers.process.told_error import remake
from batcher.workers.shared_memory.packing import Packer
from batcher.workers.shared_memory.ring import HELD, Ring
from batcher.workers.shared_memory.slots import Slot

EXIT_MS = 1000
"""Milliseconds for a child to end after it closed the connection: for what its model does at exit.
The rest takes a few.
"""


class _Order(Enum):
    LOAD = "load"
    LOAD_WITH_HOOKS = "load with hooks"
    QUIT = "quit"
    KILL = "kill"


class _Task:
    """A batch on its way; times are those of `perf_counter`."""

    slot: Slot
    number = 0  # by which the child's answer is known
    started = 0.0
    collated = 0.0
    outcome: Outcome | None = None

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.handed_at = perf_counter()


class Life:
    """A child and its thread.

    The thread is a daemon: it never delays the end of the process, nor does the child.
    """

    def __init__(
        self,
        name: str,
        definition: ModelDefinition,
        settings: ModelSettings,
        call_from_thread: CallFromThread,
        parent: Parent,
    ) -> None:
        """Prepare a life whose thread is called `name`."""
        self._prepare = Prepare(definition, settings)
        self._places = settings.pipeline_depth
        self._call_from_thread = call_from_thread
        self._parent = parent
        self._orders: SimpleQueue[_Task | _Order] = SimpleQueue()
        self._wake = -1  # written to with every order
        self._on_its_way = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        # what follows belongs to the thread
        self._child: ChildProcess | None = None
        self._ring: Ring
        self._waiting: deque[_Task] = deque()
        self._sent: deque[_Task] = deque()
        self._returned = 0.0  # when the last batch came back
        self._with_hooks = False
        self._last: _Order | None = None  # QUIT or KILL
        self._numbers = count(1)
        self._fault = ""  # what the child did that it must not do, and is killed for

    def start(self) -> None:
        """Start thread and process. Reactor thread."""
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC)
            self._thread.start()
        except (OSError, RuntimeError) as err:  # no more files, no more threads
            self._call_from_thread(self._ended, f"the child could not be started: {err}", 0)

    def load(self, with_hooks: bool) -> None:
        """Load the model; with hooks, make its hooks in this process too. Reactor thread."""
        self._order(_Order.LOAD_WITH_HOOKS if with_hooks else _Order.LOAD)

    def run(self, batch: Batch) -> None:
        """Run `batch` after those before it. Reactor thread."""
        self._on_its_way.clear()
        self._order(_Task(batch))

    def let_begin(self, seconds: float) -> None:
        """Wait up to `seconds` until the batch handed over last is on its way. Reactor thread."""
        self._on_its_way.wait(seconds)

    def quit(self) -> None:
        """End it when what was handed over is done. Reactor thread."""
        self._order(_Order.QUIT)

    def kill(self) -> None:
        """End it now. Reactor thread."""
        self._order(_Order.KILL)
        if self._child is not None:
            self._child.kill()

    def _order(self, order: _Task | _Order) -> None:
        self._orders.put(order)
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, group_signals()
        )  # the child shall be born with them blocked
        try:
            self._child = child = ChildProcess(self._places + HELD)
            try:
                self._ring = Ring(child.slots)
                self._live(child.connection, child.ended_fd)
                how = self._end(child)
            finally:
                child.close()
        except Exception as err:  # of the system, which has no more processes, files, memory
            how = f"the child could not be had: {type(err).__name__}: {err}"
        self._call_from_thread(self._ended, self._fault or how, self._begun())

    def _end(self, child: ChildProcess) -> str:
        """End the child, hear what it did before, and return how it ended."""
        how = child.end()
        while not self._fault and self._listen(child.connection):
            pass
        return how

    def _begun(self) -> int:
        """Return how many batches it may have begun.

        The oldest, whose answer it sends before it begins the next.
        """
        left = sum(task.outcome is None for task in self._sent)
        return left if self._fault else min(left, 1)

    def _ended(self, how: str, begun: int) -> None:
        if self._wake >= 0:
            os.close(self._wake)
        self._parent.ended(self, how, begun)

    def _live(self, connection: Connection, ended_fd: int) -> None:
        """Serve the loop and the child until the child has ended, or shall be killed."""
        poller = select.poll()
        for fd in (self._wake, connection.fileno(), ended_fd):
            poller.register(fd, select.POLLIN)
        _send(connection, self._prepare)
        while self._last is not _Order.KILL and not self._fault:
            ready = {fd for fd, _ in poller.poll()}
            if connection.fileno() in ready:
                if not self._listen(connection):
                    break
            elif ended_fd in ready:
                return
            if self._wake in ready:
                os.eventfd_read(self._wake)
                self._take_orders(connection)
            self._feed(connection)
        if self._last is not _Order.KILL and not self._fault:
            poller.unregister(connection)
            poller.unregister(self._wake)
            if not poller.poll(EXIT_MS):
                self._fault = "it closed its connection and did not end"

    def _take_orders(self, connection: Connection) -> None:
        while not self._orders.empty():
            order = self._orders.get()
            if isinstance(order, _Task):
                self._waiting.append(order)
            elif order in (_Order.QUIT, _Order.KILL):
                self._last = order
            else:
                self._with_hooks = order is _Order.LOAD_WITH_HOOKS
                _send(connection, Load())

    def _feed(self, connection: Connection) -> None:
        """Send what the child shall find when it is done."""
        while self._waiting and len(self._sent) < self._places:
            task = self._waiting.popleft()
            run = self._collated(task)
            if run is not None and not _send(connection, run):
                self._waiting.clear()  # it has ended, and none of these has begun
                return
            self._sent.append(task)
            self._on_its_way.set()
        self._deliver()
        if self._last is _Order.QUIT and not self._waiting and not self._sent:
            _send(connection, None)

    def _collated(self, task: _Task) -> Run | None:
        """Put the inputs of a batch into a slot; None if that fails, and its outcome says why."""
        task.started = perf_counter()
        slot, task.slot = self._ring.take()
        packer = Packer(task.slot)
        try:
            table = packer.table(task.batch.collate(packer.allocate))
        except Exception as err:  # no memory, or objects that cannot cross
            task.slot.busy = False
            task.outcome = Outcome(
                [], device_error(err), task.started - task.handed_at, perf_counter() - task.started
            )
            return None
        task.collated = perf_counter()
        task.number = next(self._numbers)
        return Run(task.number, slot, table, packer.end, task.batch.rows)

    def _listen(self, connection: Connection) -> bool:
        """Hear one message; return whether more may come."""
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return False
        except Exception as err:  # of unpickling: something else wrote into the connection
            self._fault = f"it sent what cannot be read: {type(err).__name__}: {err}"
            return False
        self._hear(message)
        return not self._fault

    def _hear(self, message: object) -> None:
        if isinstance(message, Done | Failed):
            self._answered(message)
        elif isinstance(message, Doing):
            self._call_from_thread(self._parent.reported, message.text)
        elif isinstance(message, Refused):
            self._call_from_thread(self._parent.refused, message.reason)
        elif isinstance(message, Ready):
            self._loaded(message)

    def _answered(self, answer: Done | Failed) -> None:
        """Take the answer to the oldest batch; another's must not go to its clients."""
        task = next((task for task in self._sent if task.outcome is None), None)
        if task is None or task.number != answer.number:
            self._fault = (
                f"it answered out of turn: batch {answer.number}, not "
                f"{task.number if task else 'one it was given'}"
            )
            return
        task.outcome = self._outcome(task, answer)
        self._deliver()

    def _loaded(self, ready: Ready) -> None:
        loaded = Loaded(
            one_call=True, timings=ready.timings
        )  # no batch takes the interpreter lock of this process
        if ready.has_hooks and self._with_hooks:
            try:
                preprocess, postprocess = make_hooks(
                    self._prepare.definition, self._prepare.settings
                )
            except ModelLoadError as err:
                self._call_from_thread(self._parent.refused, str(err))
                self._last = _Order.KILL
                return
            loaded = loaded._replace(preprocess=preprocess, postprocess=postprocess)
        self._call_from_thread(self._parent.loaded, loaded)

    def _outcome(self, task: _Task, answer: Done | Failed) -> Outcome:
        """Return what became of a batch.

        It counts from when the child was free for it: it was put together before.
        """
        returned = perf_counter()
        error: BaseException | None = None
        started = max(task.started, self._returned)
        results: list[Mapping[str, Array]] = []
        failed: dict[int, BaseException] = {}
        self._returned = returned
        if isinstance(answer, Failed):
            task.slot.busy = False
            error = remake(answer.error)
        else:
            try:
                task.slot.reserve(answer.end)
                results.extend(task.batch.split(self._ring.read(task.slot, answer.table)))
                failed = {row: remake(told) for row, told in answer.failed.items()}
            except MemoryError as err:
                task.slot.busy, error = False, device_error(err)
        ended = perf_counter()
        collating, splitting = max(task.collated - started, 0.0), ended - returned
        return Outcome(
            results, error, started - task.handed_at, ended - started, collating, splitting, failed
        )

    def _deliver(self) -> None:
        """Deliver what is done, in order."""
        while self._sent and (outcome := self._sent[0].outcome) is not None:
            self._call_from_thread(self._parent.delivered, self._sent.popleft().batch, outcome)


def _send(connection: Connection, message: object) -> bool:
    """Send `message`, and return whether the child was there to take it."""
    try:
        send(connection, message)
    except OSError:
        return False
    return True
