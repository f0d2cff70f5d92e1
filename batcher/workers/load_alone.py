"""Loads in this process: one at a time, and nothing of them stays with the process.

The code of a model and the libraries below it change what belongs to the whole process while they
load: PyTorch's exporters and its default dtype, seeds, late imports. Two loads on two threads would
spoil each other. So a load on a thread holds `LOAD_LOCK` from its begin to its end, warm-up
included. What the load has changed is put back at its end (`process_state.py`), and told.

A load that waits for a compiler pauses: others load meanwhile. So what the load has changed is put
back at the begin of the pause, too, and the rest of the load runs as the model will serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

from twisted.logger import Logger

from batcher.batching.worker import CallFromThread
from batcher.models.load_pause import pause_with
from batcher.models.process_state import ProcessState
from batcher.workers.own_processes import follow_processes
from batcher.workers.own_threads import follow_threads
from batcher.workers.start_method import StartMethod

Loaded = TypeVar("Loaded")

_log = Logger()


class LoadLock:
    """Held by one holder at a time. A holder that hangs can be made to lose the lock."""

    def __init__(self) -> None:
        """Be held by nobody. Any thread."""
        self._condition = Condition()
        self._holder: object = None

    def take_for(self, holder: object) -> None:
        """Wait until nobody holds the lock, and let `holder` hold the lock. Any thread."""
        with self._condition:
            self._condition.wait_for(lambda: self._holder is None)
            self._holder = holder

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
    holder: object,
    title: str,
    load: Callable[[], Loaded],
    call_from_thread: CallFromThread,
    paused: Callable[[], object] = lambda: None,
    resumes: Callable[[], object] = lambda: None,
) -> Loaded:
    """Return what `load` returns, while nothing else loads in this process.

    What `load` has changed for the whole process is put back. `holder` is whoever takes the lock
    away from a load that hangs, `title` the model as the log names it. `paused` is called when the
    load waits for another process, `resumes` whenever the load has waited and holds the lock; what
    `resumes` raises ends the load.

    Any thread.
    """
    alone = _Alone(holder, title, call_from_thread, paused, resumes)
    try:
        alone.enter()
        with pause_with(alone.pause):
            return load()
    finally:
        alone.leave()


class _Alone:
    """The time in which one model alone loads in this process."""

    _before: ProcessState | None = None
    _start_method: StartMethod

    def __init__(
        self,
        holder: object,
        title: str,
        call_from_thread: CallFromThread,
        paused: Callable[[], object],
        resumes: Callable[[], object],
    ) -> None:
        """Let `holder` load; the arguments are those of `load_alone`. Any thread."""
        self._holder = holder
        self._title = title
        self._call_from_thread = call_from_thread
        self._paused = paused
        self._resumes = resumes

    def enter(self) -> None:
        """Wait until nobody else loads; raise if nobody waits for this load any more.

        Any thread.
        """
        LOAD_LOCK.take_for(self._holder)
        self._before = ProcessState()
        self._start_method = StartMethod()
        follow_threads()
        follow_processes()
        # Now, since the load may have been given up while it waited for the lock.
        self._resumes()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Let others load meanwhile. Any thread."""
        self.leave()
        self._paused()
        try:
            yield
        finally:
            self.enter()

    def leave(self) -> None:
        """Put the process back as it was, and let others load. Not inside is nothing to do.

        Any thread.
        """
        before, self._before = self._before, None
        if before is None:
            return
        # A load that was given up has left the process to others.
        changes = []
        if LOAD_LOCK.is_held_by(self._holder):
            changes = [*before.put_back(), *self._start_method.put_back()]
        LOAD_LOCK.take_from(self._holder)
        if changes:
            self._call_from_thread(_warn, self._title, changes)


def _warn(title: str, changes: list[str]) -> None:
    """Say in the log which `changes` of the whole process were put back. Reactor thread."""
    _log.warn(
        "{title}: its load changed what belongs to the whole process: {changes}. All of it was put "
        "back, since other models share the process. A model that needs such a change while it "
        "serves runs with `worker: process`",
        title=title,
        changes="; ".join(changes),
    )
