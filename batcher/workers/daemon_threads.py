"""Daemon threads that run what waits in a fair queue.

`concurrent.futures` was refused: Python joins its threads when the program ends, so a `preprocess`
that hangs would keep an embedding program from ending. And a task that was cancelled there stays in
the queue until a thread comes to it; here it leaves at once.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from batcher.workers.fair_queue import FairQueue, Item


class Task(Item, Protocol):
    """What a thread runs; neither method raises anything."""

    def run(self) -> None:
        """Do the work. A daemon thread."""

    def ended(self) -> None:
        """Say that the work is done and its place is free again. A daemon thread."""


AnyTask = TypeVar("AnyTask", bound=Task)


def start_daemon(function: Callable[[], object], name: str) -> None:
    """Run `function` on a thread of its own, which does not keep the program from ending."""
    Thread(target=function, name=name, daemon=True).start()


class DaemonThreads(Generic[AnyTask]):
    """Runs tasks on up to `most` threads, which start with the first tasks.

    A thread that hangs does not keep the program from ending.
    """

    def __init__(self, most: int, name: str, queue: FairQueue[AnyTask]) -> None:
        """Run what waits in `queue`; name each thread `name` and a number. Reactor thread."""
        self._most = most
        self._name = name
        self._threads = 0
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
        if is_short and self._threads < self._most:
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

    def _start_thread(self, task: AnyTask) -> None:
        """Start one thread more; those that are there suffice if the system has no more.

        Reactor thread.
        """
        name = f"{self._name}_{self._threads}"
        try:
            Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            if not self._threads:
                self.remove(task)
                raise
        else:
            self._threads += 1

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
