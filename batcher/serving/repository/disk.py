"""The thread that reads the folders of models, since a slow disk must not hold up the loop.

Reads are made one after the other, in the order in which they were asked for. A listing that has
not begun is shared by all who ask for one meanwhile: it shows the disk later than they asked. So
clients that ask for the index again and again cost one listing at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.core.waiters import Waiters
from batcher.errors import ConfigError, DeadlineExceeded
from batcher.serving.repository.listing import Known, Listing
from batcher.serving.repository.reading import find_sound
from batcher.workers.pool import CpuPool

Result = TypeVar("Result")

DISK_WAIT_S = 600.0
"""Seconds that a read may take and wait; a disk that is silent for longer is not there."""


class ModelDisk:
    """Reads the disk beside the loop. Reactor thread."""

    def __init__(
        self,
        pool: CpuPool,
        seconds: Callable[[], float],
        base: Path,
        known: Callable[[], Known] = dict,
    ) -> None:
        """Read on the one thread of `pool`; relative paths start from the folder `base`.

        `known` returns what is known of stores.
        """
        self.base = base
        self.known = known
        self._pool = pool
        self._seconds = seconds
        self._listing: _Listing | None = None

    def read(self, function: Callable[[], Result]) -> Deferred[Result]:
        """Run `function` on the disk's thread; fires and fails as `function` returns and raises.

        Fails with ConfigError after DISK_WAIT_S, and with Draining if the server stops.

        Raises:
            QueueFull: too many reads wait already.
            Draining: the server has stopped.
        """
        reading = self._pool.run(0, self._seconds() + DISK_WAIT_S, function)
        return reading.addErrback(_explain)

    def listing(self, settings: ServerSettings) -> Deferred[Listing]:
        """List every version of every model, as `find_sound` does and fails; may be cancelled."""
        listing = self._listing
        if listing is None or listing.begun or listing.settings is not settings:
            listing = self._listing = _Listing(settings, self.base, self.known)
            self.read(listing.run).addBoth(listing.end)
        return listing.wait()


class _Listing:
    """One listing, for all who asked before it began.

    Attributes:
        settings: say where to look.
        begun: whether the disk's thread has begun, and later changes on disk may be missed.
    """

    def __init__(self, settings: ServerSettings, base: Path, known: Callable[[], Known]) -> None:
        self.settings = settings
        self.begun = False
        self._base = base
        self._known = known
        self._ended = Waiters()
        self._result: Listing | Failure | None = None

    def run(self) -> Listing:
        """List the folders. Disk thread."""
        self.begun = True
        return find_sound(self.settings, self._base, self._known())

    def wait(self) -> Deferred[Listing]:
        """Return a Deferred of the folders. Reactor thread."""
        ended = self._ended.wait() if self._result is None else succeed(None)
        # A Failure that a callback returns fails the Deferred.
        return ended.addCallback(lambda _: self._result)

    def end(self, result: Listing | Failure) -> None:
        """Hand `result` to all who wait. Reactor thread."""
        self.begun = True
        self._result = result
        self._ended.release()


def _explain(failure: Failure) -> NoReturn:
    failure.trap(DeadlineExceeded)
    raise ConfigError(
        f"model_repository: expected the disk to answer within {DISK_WAIT_S:.0f} s; it did not"
    ) from failure.value
