"""Looks again and again for models that have come, gone or changed (`watch_repository_s`).

    wait -> list the stores, fetch what is new -> look at the folders -> nothing has changed -> wait
                                                        |
                                                        +-> each model that has changed, by itself:
                                                            load beside what serves, then swap

All of that is read on the threads of the stores and of the disk. A look at what has not changed
loads nothing. A model that cannot be loaded leaves what serves as it is, and holds up no other one.
The next wait begins when a look has ended, so looks never pile up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.core.error_text import message
from batcher.errors import ConfigError, Draining, QueueFull, ReloadRefused
from batcher.serving.metrics import ServerMetrics
from batcher.serving.repository.rollout import Rollout

_log = Logger()


class Watched(Protocol):
    """What is looked at: the repository. Reactor thread."""

    def look(self) -> Deferred[tuple[list[str], list[str]]]:
        """Fetch what is new; fires with the models that seem to have changed, and with warnings."""

    def change(
        self, names: list[str], make: Callable[[list[Rollout]], Deferred[None]]
    ) -> Deferred[None]:
        """Call `make` with what has changed of the models `names`, while nobody else changes any.

        Fails with ConfigError, ReloadRefused.
        """

    def apply(self, rollout: Rollout) -> Deferred[list[str]]:
        """Load and swap; fires with what has changed, in words."""


class RepositoryWatch:
    """Looks at the repository from time to time. Reactor thread."""

    def __init__(self, watched: Watched, clock: IReactorTime, metrics: ServerMetrics) -> None:
        """Look at `watched`, never before `every` says how often."""
        self._watched = watched
        self._clock = clock
        self._metrics = metrics
        self._seconds = 0.0
        self._call: IDelayedCall | None = None
        self._is_looking = False
        self._said: set[str] = set()

    def every(self, seconds: float) -> None:
        """Look every `seconds` from now on; 0 looks no more."""
        if seconds == self._seconds:
            return
        self._seconds = seconds
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._wait()

    def _wait(self) -> None:
        if self._seconds and self._call is None and not self._is_looking:
            self._call = self._clock.callLater(self._seconds, self._look)

    def _look(self) -> None:
        self._call = None
        self._is_looking = True
        looked = self._watched.look().addCallback(self._looked)
        looked.addErrback(self._failed).addBoth(self._end)

    def _looked(self, found: tuple[list[str], list[str]]) -> Deferred[None]:
        names, warnings = found
        self._say(warnings)
        if not names or not self._seconds:
            return succeed(None)
        return self._watched.change(names, self._make)

    def _make(self, rollouts: list[Rollout]) -> Deferred[None]:
        """Make one change after the other; one that fails leaves the others alone."""
        made: Deferred[None] = succeed(None)
        for rollout in rollouts:
            made.addCallback(partial(self._make_one, rollout))
        return made

    def _make_one(self, rollout: Rollout, _: None) -> Deferred[None]:
        return self._watched.apply(rollout).addCallbacks(self._applied, self._refused)

    def _applied(self, changes: list[str]) -> None:
        self._metrics.changes["applied"] += 1
        _log.info("the repository has changed: {what}", what=", ".join(changes))

    def _refused(self, failure: Failure) -> None:
        if failure.check(Draining):
            return
        self._metrics.changes["refused"] += 1
        if not failure.check(ReloadRefused, ConfigError):
            _log.failure("a change of the repository failed", failure)
        for reason in message(failure.value).splitlines():
            _log.error("the repository has changed; what serves goes on: {why}", why=reason)

    def _failed(self, failure: Failure) -> None:
        """Say why a look failed, once; the next look may succeed."""
        if failure.check(Draining, QueueFull):
            return
        if not failure.check(ConfigError):
            _log.failure("a look at the repository failed", failure)
            return
        self._say([f"the repository cannot be looked at: {failure.value}"])

    def _say(self, warnings: list[str]) -> None:
        """Log what was not said at the look before."""
        for warning in warnings:
            if warning not in self._said:
                _log.warn("{warning}", warning=warning)
        self._said = set(warnings)

    def _end(self, _: object) -> None:
        self._is_looking = False
        self._wait()
