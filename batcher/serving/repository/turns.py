"""Changes to models take turns: one change at a time to each model, or one change to many.

Clients load and unload one model each, and a reload of the settings changes any number of models.
Each change waits for those that began before it with a model of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import AlreadyCalledError, Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IReactorTime

from batcher.errors import ModelNotReady

Result = TypeVar("Result")

CHANGE_WAIT_S = 600.0
"""Seconds that a client waits for a model to load or unload; the change goes on without a client
that has waited longer.
"""


class ModelTurns:
    """Gives changes their turns. Reactor thread."""

    def __init__(self, clock: IReactorTime) -> None:
        """Measure on `clock` how long clients wait."""
        self._clock = clock
        self._locks: dict[str, DeferredLock] = {}

    def one(self, name: str, change: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Make a change to the model `name` when the changes before it are made.

        The change is made also when the client that waits for it leaves. Fails with ModelNotReady
        after `CHANGE_WAIT_S`.
        """
        waiting: Deferred[None] = Deferred()
        self._lock(name).run(change).addCallbacks(
            lambda _: _fire(waiting.callback, None),
            lambda failure: _fire(waiting.errback, failure),
        )
        return waiting.addTimeout(CHANGE_WAIT_S, self._clock, _still_changing)

    def alone(
        self, names: Iterable[str], change: Callable[[], Deferred[Result]]
    ) -> Deferred[Result]:
        """Make a change to the models `names` when all changes to them before it are made."""
        locks = [self._lock(name) for name in names]

        def release(result: Any) -> Any:
            for lock in locks:
                lock.release()
            return result

        taken = DeferredList([lock.acquire() for lock in locks])
        return taken.addCallback(lambda _: change()).addBoth(release)

    def _lock(self, name: str) -> DeferredLock:
        return self._locks.setdefault(name, DeferredLock())


def _fire(fire: Callable[[Any], None], result: Any) -> None:
    with suppress(AlreadyCalledError):  # the client has left, or has waited for too long
        fire(result)


def _still_changing(result: Any, seconds: float) -> Any:
    raise ModelNotReady(
        f"the model is still being loaded or unloaded after {seconds:.0f} s", retry_after=60
    )
