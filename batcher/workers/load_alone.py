"""Loads in this process: one at a time, and nothing of them stays with the process.

The code of a model and the libraries below it change what belongs to the whole process while they
load: PyTorch's exporters and its default dtype, seeds, late imports. Two loads on two threads would
spoil each other. So a load on a thread holds `LOAD_LOCK` from its begin to its end, warm-up
included. What the load has changed is put back at its end (`process_state.py`), and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

from twisted.logger import Logger

from batcher.batching.worker import CallFromThread
from batcher.models.process_state import ProcessState

Loaded = TypeVar("Loaded")

_log = Logger()


class LoadLock:
    """Held by one holder at a time. A holder that hangs can be made to lose the lock."""

    def __init__(self) -> None:
        """Be held by nobody. Any thread."""
        self._condition = Condition()
        self._holder: object = None

    @contextmanager
    def held_by(self, holder: object) -> Iterator[None]:
        """Wait until nobody else holds the lock, and hold the lock meanwhile. Any thread."""
        with self._condition:
            self._condition.wait_for(lambda: self._holder is None)
            self._holder = holder
        try:
            yield
        finally:
            self.take_from(holder)

    def is_held_by(self, holder: object) -> bool:
        """Return whether `holder` holds the lock still. Any thread."""
        return self._holder is holder

    def take_from(self, holder: object) -> None:
        """Let the next one hold the lock, if `holder` holds the lock now. Any thread."""
        with self._condition:
            if self._holder is holder:
                self._holder = None
                self._condition.notify()


LOAD_LOCK = LoadLock()
"""Held by whatever loads a model in this process."""


def load_alone(
    holder: object, title: str, load: Callable[[], Loaded], call_from_thread: CallFromThread
) -> Loaded:
    """Return what `load` returns, while nothing else loads in this process.

    What `load` has changed for the whole process is put back. `holder` is whoever takes the lock
    away from a load that hangs, `title` the model as the log names it. Any thread.
    """
    with LOAD_LOCK.held_by(holder):
        before = ProcessState()
        try:
            return load()
        finally:
            # A load that was given up has left the process to others.
            changes = before.put_back() if LOAD_LOCK.is_held_by(holder) else []
            if changes:
                call_from_thread(_warn, title, changes)


def _warn(title: str, changes: list[str]) -> None:
    """Say in the log which `changes` of the whole process were put back. Reactor thread."""
    _log.warn(
        "{title}: its load changed what belongs to the whole process: {changes}. All of it was put "
        "back, since other models share the process. A model that needs such a change while it "
        "serves runs with `worker: process`",
        title=title,
        changes="; ".join(changes),
    )
