"""The temporary folder that a compiled package is unpacked into.

The folder is removed once nobody needs its files: on the CPU as soon as the library is open, on
CUDA when the model is unloaded, since kernels are read late. A process that is killed removes
nothing. So each folder is locked by its process, and a lock ends with its process, however that
ends. Whoever unpacks a package removes the folders that nobody has locked:

    made under another name ─► locked ─► renamed to batcher-aoti-… ─► removed
                                                  └─ process killed: removed by the next one
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from weakref import finalize

PREFIX = "batcher-aoti-"
_UNLOCKED_PREFIX = "batcher-unlocked-"


class UnpackedFolder:
    """A temporary folder of this process.

    Attributes:
        path: where it is.
    """

    def __init__(self) -> None:
        """Make the folder, after folders that ended processes left were removed.

        Raises:
            OSError: there is no temporary folder that can be written to.

        Any thread.
        """
        remove_left_folders()
        made = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX))
        lock = os.open(made, os.O_RDONLY)
        # A file system without locks: nobody removes what cannot be locked.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.with_name(made.name.replace(_UNLOCKED_PREFIX, PREFIX))
        made.rename(self.path)
        # Also at the end of the process, and when the model is forgotten.
        self.remove = finalize(self, _remove, self.path, lock)


def remove_left_folders() -> None:
    """Remove this user's folders whose processes have ended. Any thread."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another process may remove it meanwhile; one of another user's cannot be opened.
        with suppress(OSError):
            if folder.stat(follow_symlinks=False).st_uid == os.geteuid():
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    """Remove `folder` unless a process has locked it. Any thread."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove(path: Path, lock: int) -> None:
    """Remove the folder at `path` and end its lock. Any thread."""
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
