"""Reloads of the settings: one at a time, each written to the log and counted.

Many reloads may be wanted while one runs: SIGHUP may come at any time, and programs call `reload`.
All that wait are made as one, with the settings as they are when their turn comes:

    A wanted   A runs --------------------------> A ends   B and C run as one --> both end
                       B wanted      C wanted
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.core.waiters import Waiters
from batcher.errors import ConfigError, ReloadRefused
from batcher.serving.metrics import ServerMetrics

Read = Callable[[], ServerSettings]
"""Reads the settings from their sources; raises ConfigError."""


class Reloads:
    """Makes one reload at a time; none before `open`. Reactor thread."""

    def __init__(
        self, change: Callable[[Read], Deferred[list[str]]], metrics: ServerMetrics
    ) -> None:
        """Make each reload by `change`, and count it in `metrics`.

        `change` reads and applies the settings. Its Deferred fires with what has changed, in words,
        or fails, and then nothing has changed.
        """
        self._change = change
        self._metrics = metrics
        self._log = Logger()
        self._read: Read
        self._waiters = Waiters()
        self._is_open = False
        self._is_running = False

    def reload(self, read: Read) -> Deferred[None]:
        """Apply the settings that `read` returns, when the reload before this one has ended.

        Fires when they are applied, fails with ReloadRefused or ConfigError if they cannot be.
        """
        self._read = read
        if self._is_running:
            self._log.info(
                "a reload was asked for: it waits for the one before it, which has not ended"
            )
        reloaded = self._waiters.wait()
        self._run_next()
        return reloaded

    def open(self) -> None:
        """Make the reloads that wait, and from now on every other."""
        self._is_open = True
        self._run_next()

    def _run_next(self) -> None:
        if self._is_running or not self._is_open or not self._waiters:
            return
        self._is_running = True
        # Whoever comes while this reload runs must wait for the next: the settings may have been
        # read already.
        waiters, self._waiters = self._waiters, Waiters()
        changed = maybeDeferred(self._change, self._read)
        changed.addCallbacks(self._applied, self._refused).addBoth(self._end, waiters)

    def _applied(self, changes: list[str]) -> None:
        self._metrics.reloaded("applied")
        self._log.info("reloaded: {what}", what=", ".join(changes) or "nothing has changed")

    def _refused(self, failure: Failure) -> Failure:
        self._metrics.reloaded("refused")
        if not failure.check(ReloadRefused, ConfigError):
            self._log.failure("not reloaded", failure)
        for reason in reason_of(failure).splitlines():
            self._log.error("not reloaded, nothing has changed: {reason}", reason=reason)
        return failure

    def _end(self, failure: Failure | None, waiters: Waiters) -> None:
        self._is_running = False
        waiters.release(failure)
        self._run_next()


def reason_of(failure: Failure) -> str:
    """Return the message of `failure`, or the name of its class where the message is empty."""
    return failure.getErrorMessage() or type(failure.value).__name__


def reload_on_hangup(reactor: Any, reload: Callable[[], object]) -> None:
    """Call `reload` on the reactor thread after each SIGHUP. Main thread.

    A SIGHUP that comes before the reactor runs is kept: `reload` is called as soon as it runs.
    """
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
