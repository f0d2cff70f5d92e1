"""Daemon threads that run what comes, the oldest first.

`concurrent.futures` was refused: Python joins its threads when the program ends, so a `preprocess`
that hangs would keep an embedding program from ending. And a task that was cancelled there stays in
the queue until a thread comes to it; here it leaves at once.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Condition, Thread
from typing import Protocol


class Task(Protocol):
    """What a thread runs; it raises nothing."""

    def run(self) -> None:
        """Do the work. A daemon thread."""


class DaemonThreads:
    """Runs tasks on up to `most` threads, which start with the first tasks.

    A thread that hangs does not keep the program from ending.
    """

    def __init__(self, most: int, name: str) -> None:
        """Name each thread `name` and a number. Reactor thread."""
        self._most = most
        self._name = name
        self._threads = 0
        self._idle = 0
        self._stopped = False
        # Guards all but `_threads`: a thread takes the oldest task, the loop may take any away.
        self._changed = Condition()
        self._waiting: OrderedDict[Task, None] = OrderedDict()

    def add(self, task: Task) -> None:
        """Have `task` run once a thread is free. Reactor thread.

        Raises:
            RuntimeError: there is no thread, and the system has no more.
        """
        with self._changed:
            is_short = self._idle <= len(self._waiting)
        if is_short and self._threads < self._most:
            self._start_thread()
        with self._changed:
            self._waiting[task] = None
            self._changed.notify()

    def remove(self, task: Task) -> bool:
        """Keep `task` from being run; return whether it waited until now. Any thread."""
        with self._changed:
            waited = task in self._waiting
            self._waiting.pop(task, None)
        return waited

    def stop(self) -> None:
        """Begin no more tasks; each thread ends as soon as its task has. Reactor thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _start_thread(self) -> None:
        """Start one thread more; those that are there suffice if the system has no more.

        Reactor thread.
        """
        name = f"{self._name}_{self._threads}"
        try:
            Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        """Run tasks until the end. A daemon thread."""
        while (task := self._take()) is not None:
            task.run()
            del task  # nothing of a finished task is kept while the thread waits

    def _take(self) -> Task | None:
        """Wait for a task; None when no more are begun. A daemon thread."""
        with self._changed:
            self._idle += 1
            while not self._waiting and not self._stopped:
                self._changed.wait()
            self._idle -= 1
            return None if self._stopped else self._waiting.popitem(last=False)[0]
