"""One child and its thread in the parent: started, loaded, fed with batches, ended, waited for.

Each child has a thread of its own in the parent, the child thread. The child thread waits for the
loop and for the child at once, in one `poll`:

| what can be read | what the child thread does |
|---|---|
| the connection | hears one message of the child, and sends the next batches |
| the event file, which the loop writes to with every order | takes the orders, and sends batches |
| the descriptor of the process | ends: the child has ended, and every message was heard |

`transit.py` says which batches the child may have. The loop kills a child without waiting for the
child thread, which may be waiting for the rest of a message.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from enum import Enum
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from queue import SimpleQueue
from threading import Event, Thread

from batcher.batching.batch import Batch
from batcher.batching.worker import CallFromThread
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.models.protocol import RemoteHook
from batcher.workers.process.child_process import ChildProcess, group_signals
from batcher.workers.process.child_protocol import Parent
from batcher.workers.process.hook_client import ChildHook, HookLine
from batcher.workers.process.messages import (
    BatchDone,
    BatchFailed,
    Load,
    LoadDone,
    LoadFailed,
    LoadPaused,
    LoadProgress,
    Prepare,
    send,
)
from batcher.workers.process.transit import BatchInTransit, Transit
from batcher.workers.shared_memory.ring import MAX_HELD_SLOTS

EXIT_TIMEOUT_MS = 1000
"""Milliseconds for a child to end after it closed the connection: for what its model does at exit.
The rest takes a few.
"""


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which libraries for arrays learn how many threads they may have."""


class _Order(Enum):
    """What the loop orders besides batches."""

    LOAD = "load"
    QUIT = "quit"
    KILL = "kill"


class ChildThread:
    """A child and the thread of this process that serves it.

    The thread is a daemon: neither the thread nor the child delays the end of the process.
    """

    # These belong to the thread, but for `_child`, on which the loop may call `kill`.
    _child: ChildProcess | None = None
    _hooks: HookLine | None = None
    _last_order: _Order | None = None
    """QUIT or KILL, once one of the two was ordered."""

    _fault = ""
    """What the child did that it must not do, and is killed for."""

    def __init__(
        self,
        name: str,
        definition: ModelDefinition,
        settings: ModelSettings,
        call_from_thread: CallFromThread,
        parent: Parent,
    ) -> None:
        """Prepare a child, and a thread called `name`. Reactor thread."""
        self._prepare = Prepare(definition, settings)
        self._depth = settings.pipeline_depth
        # Libraries under NumPy read their number of threads when they are imported.
        threads = settings.torch_threads
        self._environment = dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {}
        self._call_from_thread = call_from_thread
        self._parent = parent
        self._orders: SimpleQueue[BatchInTransit | _Order] = SimpleQueue()
        self._wake_fd = -1
        self._sent = Event()
        deliver = partial(call_from_thread, parent.delivered)
        self._transit = Transit(settings.pipeline_depth, self._sent.set, deliver)
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start thread and process. Reactor thread."""
        if sys.platform != "linux":
            how = f"expected Linux for `worker: process`; this is {sys.platform}"
            self._call_from_thread(self._ended, how, 0)
            return
        try:
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
            self._thread.start()
        except (OSError, RuntimeError) as err:  # no more files, no more threads
            self._call_from_thread(self._ended, f"the child could not be started: {err}", 0)

    def load(self) -> None:
        """Load the model. Reactor thread."""
        self._order(_Order.LOAD)

    def run(self, batch: Batch) -> None:
        """Run `batch` after those before it. Reactor thread."""
        self._sent.clear()
        self._order(BatchInTransit(batch))

    def let_begin(self, seconds: float) -> None:
        """Wait up to `seconds` until the child was sent the last batch. Reactor thread."""
        self._sent.wait(seconds)

    def quit(self) -> None:
        """End the child once it has delivered every batch. Reactor thread."""
        self._order(_Order.QUIT)

    def kill(self) -> None:
        """End the child now. Reactor thread."""
        self._order(_Order.KILL)
        if self._child is not None:
            self._child.kill()

    def _order(self, order: BatchInTransit | _Order) -> None:
        """Hand `order` to the thread, and wake the thread. Reactor thread."""
        self._orders.put(order)
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        """Live with the child, from its start to its end. Child thread."""
        # Signals that are blocked here are blocked in the child from birth, until it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, group_signals())
        try:
            slots = self._depth + MAX_HELD_SLOTS
            self._child = child = ChildProcess(slots, self._environment)
            try:
                self._transit.begin(child.slots, partial(_send, child.connection))
                self._serve(child.connection, child.ended_fd)
                how = self._end(child)
            finally:
                child.close()
                if self._hooks is not None:
                    self._hooks.close()
        except Exception as err:  # of the system, which has no more processes, files, memory
            how = f"the child could not be had: {type(err).__name__}: {err}"
        self._call_from_thread(self._ended, self._fault or how, self._begun())

    def _end(self, child: ChildProcess) -> str:
        """End the child, hear what it said before, and return how it ended. Child thread."""
        how = child.end()
        while not self._fault and self._listen(child.connection):
            pass
        return how

    def _begun(self) -> int:
        """Return how many batches the child may have begun.

        A child answers one batch before it begins the next. Of a child with a fault nobody knows.
        Child thread.
        """
        unanswered = self._transit.unanswered()
        return unanswered if self._fault else min(unanswered, 1)

    def _ended(self, how: str, begun: int) -> None:
        """Tell supervision that the child has ended. Reactor thread."""
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
        self._parent.ended(self, how, begun)

    @property
    def _shall_live(self) -> bool:
        """Whether there is no reason to kill the child. Child thread."""
        return self._last_order is not _Order.KILL and not self._fault

    def _serve(self, connection: Connection, ended_fd: int) -> None:
        """Serve the loop and the child until the child has ended or is to be killed.

        Child thread.
        """
        poller = select.poll()
        for fd in (self._wake_fd, connection.fileno(), ended_fd):
            poller.register(fd, select.POLLIN)
        _send(connection, self._prepare)
        while self._shall_live:
            ready = {fd for fd, _ in poller.poll()}
            # The connection first: what an ended child said last is still to be heard.
            if connection.fileno() in ready:
                if not self._listen(connection):
                    break
            elif ended_fd in ready:
                return
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
                self._take_orders(connection)
            self._feed(connection)
        if self._shall_live and not _ends_soon(ended_fd):
            self._fault = "it closed its connection and did not end"

    def _take_orders(self, connection: Connection) -> None:
        """Take every order that is here. Child thread."""
        while not self._orders.empty():
            order = self._orders.get()
            if isinstance(order, BatchInTransit):
                self._transit.add(order)
            elif order in (_Order.QUIT, _Order.KILL):
                self._last_order = order
            else:
                _send(connection, Load())

    def _feed(self, connection: Connection) -> None:
        """Send the child its next batches, or the order to end. Child thread."""
        self._transit.feed()
        if self._last_order is _Order.QUIT and self._transit.is_empty:
            _send(connection, None)

    def _listen(self, connection: Connection) -> bool:
        """Hear one message; return whether more may come. Child thread."""
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
        """Take a message of the child. Child thread."""
        if isinstance(message, BatchDone | BatchFailed):
            self._fault = self._transit.take_answer(message)
        elif isinstance(message, LoadProgress):
            self._call_from_thread(self._parent.reported, message.text)
        elif isinstance(message, LoadPaused):
            self._call_from_thread(self._parent.load_paused)
        elif isinstance(message, LoadFailed):
            self._call_from_thread(self._parent.load_failed, message.reason, message.stage)
        elif isinstance(message, LoadDone):
            self._load_done(message)

    def _load_done(self, message: LoadDone) -> None:
        """Take the way to the model's hooks, if it has any, and tell supervision. Child thread."""
        hooks: dict[str, RemoteHook] = {}
        if message.hooks and self._child is not None:
            try:
                self._hooks = line = HookLine(recv_handle(self._child.connection))
            except (EOFError, OSError, RuntimeError) as err:
                self._fault = f"it did not send the way to its hooks: {err}"
                return
            hooks = {name: ChildHook(line.run, name) for name in message.hooks}
        self._call_from_thread(self._parent.loaded, message.loaded(hooks))


def _send(connection: Connection, message: object) -> bool:
    """Send `message`, and return whether the child was there to take it. Child thread."""
    try:
        send(connection, message)
    except OSError:
        return False
    return True


def _ends_soon(ended_fd: int) -> bool:
    """Return whether a child that closed its connection ends by itself. Child thread."""
    poller = select.poll()
    poller.register(ended_fd, select.POLLIN)
    return bool(poller.poll(EXIT_TIMEOUT_MS))
