"""Reloads of the settings, one at a time, each told in the log and counted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, ReloadRefused
from batcher.serving.metrics import ServerMetrics

Read = Callable[[], ServerSettings]
"""Reads the settings from where they stand; raises ConfigError."""


class Reloads:
    """Makes one reload at a time. Reactor thread.

    Who asks while one runs, or before `open`, waits for the next one and shares it with all others
    who do; it reads what is there when its turn has come.
    """

    def __init__(
        self, change: Callable[[Read], Deferred[list[str]]], metrics: ServerMetrics
    ) -> None:
        """Have `change` make each reload.

        It returns what it changed, in words, or fails and has changed nothing.
        """
        self._change = change
        self._metrics = metrics
        self._log = Logger()
        self._read: Read
        self._asked: list[Deferred[None]] = []
        self._opened = False
        self._busy = False

    def ask(self, read: Read) -> Deferred[None]:
        """Have what `read` returns applied.

        Fires when it is, fails with ReloadRefused or ConfigError if it cannot be.
        """
        self._read = read
        if self._busy:
            self._log.info(
                "a reload was asked for: it waits for the one before it, which has not ended"
            )
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        self._next()
        return asked

    def open(self) -> None:
        """Begin with what was asked for."""
        self._opened = True
        self._next()

    def _next(self) -> None:
        if self._busy or not self._opened or not self._asked:
            return
        self._busy = True
        asked, self._asked = self._asked, []
        changed = maybeDeferred(self._change, self._read)
        changed.addCallbacks(self._applied, self._refused).addBoth(self._end, asked)

    def _applied(self, what: list[str]) -> None:
        self._metrics.reloaded("applied")
        self._log.info("reloaded: {what}", what=", ".join(what) or "nothing has changed")

    def _refused(self, failure: Failure) -> Failure:
        self._metrics.reloaded("refused")
        if not failure.check(ReloadRefused, ConfigError):
            self._log.failure("not reloaded", failure)
        for reason in reason_of(failure).splitlines():
            self._log.error("not reloaded, nothing has changed: {reason}", reason=reason)
        return failure

    def _end(self, result: Failure | None, asked: list[Deferred[None]]) -> None:
        self._busy = False
        for waiting in asked:
            if result is None:
                waiting.callback(None)
            else:
                waiting.errback(result)
        self._next()


def reason_of(failure: Failure) -> str:
    """Return why something failed, in words of which there is always one."""
    return failure.getErrorMessage() or type(failure.value).__name__


def reload_on_hangup(reactor: Any, reload: Callable[[], object]) -> None:
    """Have `reload` called on the reactor thread after each SIGHUP, the first ones as soon as the reactor runs. Main thread."""
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
