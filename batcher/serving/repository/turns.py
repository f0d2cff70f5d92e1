"""Changes to models take turns: one change at a time to each model, or one change to many.

Clients load and unload one model each, and a reload of the settings changes any number of models.
Each change waits for the changes that were asked for before it, as far as they concern it:

| change | waits for |
|---|---|
| to one model | the last change to that model, and the last change to all |
| to all | the last change to each model, and the last change to all |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import AlreadyCalledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from batcher.core.waiters import Waiters
from batcher.errors import ModelNotReady

Result = TypeVar("Result")

CHANGE_WAIT_S = 600.0
"""Seconds that a client waits for a model to load or unload; the change goes on without a client
that has waited longer.
"""


class _Turn:
    """One change, from when it is asked for until it is made.

    Attributes:
        ended: fire when the change is made, or has failed.
    """

    def __init__(self) -> None:
        self.ended = Waiters()


class ModelTurns:
    """Gives changes their turns. Reactor thread."""

    def __init__(self, clock: IReactorTime) -> None:
        """Measure on `clock` how long clients wait."""
        self._clock = clock
        # The last changes that have not ended; of those to one model, only changes after `_all`.
        self._of_model: dict[str, _Turn] = {}
        self._all: _Turn | None = None

    def one(self, name: str, change: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Make a change to the model `name` when the changes before it are made.

        The change is made also when the client that waits for it leaves. Fails with ModelNotReady
        after `CHANGE_WAIT_S`.
        """
        turn, before = _Turn(), self._of_model.get(name, self._all)
        self._of_model[name] = turn

        def ended(result: Any) -> Any:
            # A name that nobody changes any more is forgotten: clients choose the names.
            if self._of_model.get(name) is turn:
                del self._of_model[name]
            turn.ended.release()
            return result

        waiting: Deferred[None] = Deferred()
        _after([before] if before is not None else [], change).addBoth(ended).addCallbacks(
            lambda _: _fire(waiting.callback, None),
            lambda failure: _fire(waiting.errback, failure),
        )
        return waiting.addTimeout(CHANGE_WAIT_S, self._clock, _still_changing)

    def alone(self, change: Callable[[], Deferred[Result]]) -> Deferred[Result]:
        """Make a change to any models when all changes before it are made."""
        before = list(self._of_model.values())
        if self._all is not None:
            before.append(self._all)
        self._all = turn = _Turn()
        self._of_model.clear()

        def ended(result: Any) -> Any:
            if self._all is turn:
                self._all = None
            turn.ended.release()
            return result

        return _after(before, change).addBoth(ended)


def _after(turns: Iterable[_Turn], change: Callable[[], Deferred[Result]]) -> Deferred[Result]:
    """Make `change` when `turns` have ended; at once if there are none."""
    ended = DeferredList([turn.ended.wait() for turn in turns])
    return ended.addCallback(lambda _: change())


def _fire(fire: Callable[[Any], None], result: Any) -> None:
    with suppress(AlreadyCalledError):  # the client has left, or has waited for too long
        fire(result)


def _still_changing(result: Any, seconds: float) -> Any:
    raise ModelNotReady(
        f"the model is still being loaded or unloaded after {seconds:.0f} s", retry_after=60
    )
