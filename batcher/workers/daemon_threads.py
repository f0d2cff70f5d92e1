"""Daemon threads that run what waits in a fair queue.

`concurrent.futures` was refused: Python joins its threads when the program ends, so a `preprocess`
that hangs would keep an embedding program from ending. And a task that was cancelled there stays in
the queue until a thread comes to it; here it leaves at once.

A program that ends waits for threads that are about to end, but not for long:

    server stops ─► wait_at_exit ─► program ends ─► at most ENDING_S ─► Python ends

Without that wait some programs crashed. A thread that has used PyTorch destroys values when it
ends, and these may ask for Python's lock, which kills the process once Python itself has ended.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter
from typing import Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from batcher.workers.fair_queue import FairQueue, Item


class Task(Item, Protocol):
    """What a thread runs; neither method raises anything."""

    def run(self) -> None:
        """Do the work. A daemon thread."""

    def ended(self) -> None:
        """Say that the work is done and its place is free again. A daemon thread."""


AnyTask = TypeVar("AnyTask", bound=Task)

ENDING_S: Final = 2.0
"""Seconds that the end of a program waits for threads that are about to end."""

_ending: WeakSet[Thread] = WeakSet()


def start_daemon(function: Callable[[], object], name: str) -> Thread:
    """Run `function` on a thread of its own, which does not keep the program from ending."""
    thread = Thread(target=function, name=name, daemon=True)
    thread.start()
    return thread


def wait_at_exit(thread: Thread) -> None:
    """Have the end of the program wait for `thread`, which is about to end. Reactor thread."""
    _ending.add(thread)


@atexit.register
def _wait_for_ending() -> None:
    """Return when threads that are about to end have ended, or after ENDING_S. Main thread."""
    latest = time.monotonic() + ENDING_S
    for thread in list(_ending):
        while _exists(thread) and time.monotonic() < latest:
            time.sleep(0.001)


def _exists(thread: Thread) -> bool:
    """Return whether the system still has `thread`, which lives a little longer than for Python."""
    return thread.is_alive() or os.path.exists(f"/proc/self/task/{thread.native_id}")


class DaemonThreads(Generic[AnyTask]):
    """Runs tasks on up to `most` threads, which start with the first tasks.

    A thread that hangs does not keep the program from ending.
    """

    def __init__(self, most: int, name: str, queue: FairQueue[AnyTask]) -> None:
        """Run what waits in `queue`; name each thread `name` and a number. Reactor thread."""
        self._most = most
        self._name = name
        self._threads: list[Thread] = []
        self._idle = 0
        self._stopped = False
        # Guards all but `_threads`: a thread takes the next task, the loop may take any away.
        self._changed = Condition()
        self._queue = queue

    def add(self, task: AnyTask) -> None:
        """Have `task` run once a thread is free. Reactor thread.

        Raises:
            QueueFull: the queue has no room for the task.
            RuntimeError: there is no thread, and the system has no more.
        """
        with self._changed:
            self._queue.put(task)
            is_short = self._idle < self._queue.waiting
            self._changed.notify()
        if is_short and len(self._threads) < self._most:
            self._start_thread(task)

    def remove(self, task: AnyTask) -> bool:
        """Keep `task` from being run; return whether it waited until now. Any thread."""
        with self._changed:
            return self._queue.remove(task)

    def stop(self) -> None:
        """Begin no more tasks; each thread ends as soon as its task has. Reactor thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            wait_at_exit(thread)

    def _start_thread(self, task: AnyTask) -> None:
        """Start one thread more; those that are there suffice if the system has no more.

        Reactor thread.
        """
        name = f"{self._name}_{len(self._threads)}"
        try:
            thread = start_daemon(self._work, name)
        except RuntimeError:
            if not self._threads:
                self.remove(task)
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        """Run tasks until the end. A daemon thread."""
        while (task := self._take()) is not None:
            began = perf_counter()
            task.run()
            seconds = perf_counter() - began
            with self._changed:
                self._queue.done(task, seconds)
            task.ended()
            del task  # nothing of a finished task is kept while the thread waits

    def _take(self) -> AnyTask | None:
        """Wait for a task; None when no more are begun. A daemon thread."""
        with self._changed:
            self._idle += 1
            while not self._queue.waiting and not self._stopped:
                self._changed.wait()
            self._idle -= 1
            return None if self._stopped else self._queue.take()
