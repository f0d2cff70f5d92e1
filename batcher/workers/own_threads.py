"""Threads that a model's code starts are the model's, whatever runs on them.

    with ThreadPoolExecutor() as pool:
        parts = pool.map(pickle.loads, data)     # in m/1/code.py

On such a thread no function of the model's files calls `pickle.loads`, so the stack of calls does
not tell whose pickles these are (`version_code/plain_names.py`). Who starts a thread does.

A pool that a library makes once for all its callers belongs to the model that used the pool first.

Refused: a context that each task of a pool brings along. It would take another `submit` for each
kind of pool, and cost something at each task.
"""

from __future__ import annotations

from threading import Thread

from batcher.models.version_code import belong_to, calling_package
from batcher.workers.own_processes import start_for, starting_package

_thread_start = Thread.start


def follow_threads() -> None:
    """Have each thread that a model's code starts belong to the model from now on. Any thread."""
    Thread.start = _start  # type: ignore[method-assign]


def _start(self: Thread) -> None:
    """Start a thread, of a model if its code does so. Any thread."""
    if package := calling_package():
        own_run, owner = vars(self).get("run"), starting_package()

        def run() -> None:
            # Without this function the thread holds nothing that holds the thread.
            del self.run
            if own_run is not None:
                self.run = own_run  # type: ignore[method-assign]  # as it was
            belong_to(package)
            start_for(owner)
            self.run()

        self.run = run  # type: ignore[method-assign]  # for this thread alone
    _thread_start(self)
