"""Runs several functions at once and waits for all of them, for code that has a thread of its own.

The pools of `pool.py` answer on the reactor thread. A thread that reads from a store has no reactor
at hand, and a command has none at all: both wait here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Generic, TypeVar

from batcher.workers.daemon_threads import start_daemon

Result = TypeVar("Result")


def in_parallel(
    most: int, tasks: Iterable[Callable[[], Result]], done: Callable[[Result], object], name: str
) -> None:
    """Run every task, up to `most` at once, and return when none runs any more.

    `done` is called with each result, one at a time. The first error is raised; tasks that have not
    begun by then are left out. The threads are named `name`, and do not keep a program from ending.
    Any thread but the reactor's.
    """
    work = _Work(tasks, done)
    threads = [start_daemon(work.run, f"batcher-{name}-{number}") for number in range(most)]
    for thread in threads:
        thread.join()
    if work.errors:
        raise work.errors[0]


class _Work(Generic[Result]):
    """Tasks that several threads take in turn.

    Attributes:
        errors: what tasks have raised; after the first, no task begins.
    """

    def __init__(
        self, tasks: Iterable[Callable[[], Result]], done: Callable[[Result], object]
    ) -> None:
        self.errors: list[BaseException] = []
        self._waiting = iter(tasks)
        self._done = done
        self._lock = Lock()

    def run(self) -> None:
        """Run tasks until none is left. Each of the threads."""
        while (task := self._take()) is not None:
            try:
                result = task()
                with self._lock:
                    self._done(result)
            except BaseException as err:
                self.errors.append(err)

    def _take(self) -> Callable[[], Result] | None:
        with self._lock:
            return None if self.errors else next(self._waiting, None)
