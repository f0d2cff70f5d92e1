"""Locks that processes of one machine hold on files, and that end with the process.

`flock` was chosen over a file with a process number in it, which outlives a process that is killed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FileLock:
    """A lock on a file, shared by many or held by one; `release` ends it. Any thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Hold the lock that `descriptor` has on the file at `path`."""
        self._path = path
        self._descriptor = descriptor

    def share(self) -> None:
        """Let others share the lock. For an instant others may take the lock alone."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Remove the file, and let go of the lock, which must be held alone."""
        self._path.unlink(missing_ok=True)
        self.release()


def try_lock(path: Path, *, alone: bool) -> FileLock | None:
    """Return a lock on the file at `path`, made if it is missing; None if others are in the way.

    Raises OSError: there can be no such file.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Whoever held it may have removed the file meanwhile: then it is the lock of nothing.
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return FileLock(path, descriptor)
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock on the file at `path`, and hold it alone meanwhile: for short work."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
