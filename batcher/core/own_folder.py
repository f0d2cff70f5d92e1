"""A temporary folder of this process, which is gone after the process however that ends.

The folder is removed once nobody needs its files. A process that is killed removes nothing. So each
folder is locked by its process, and a lock ends with its process. Whoever makes such a folder
removes the folders of the same kind that nobody has locked:

    made under another name ─► locked ─► renamed to prefix… ─► removed
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

_UNLOCKED_PREFIX = "batcher-unlocked-"


class OwnFolder:
    """A temporary folder that only this process's user may enter.

    Attributes:
        path: where it is.
    """

    def __init__(self, prefix: str, parent: str | None = None) -> None:
        """Make the folder, after folders that ended processes left were removed.

        Args:
            prefix: what the name begins with, for each use another.
            parent: the folder to make it in; None for the one of temporary files.

        Raises:
            OSError: there is no temporary folder that can be written to.

        Any thread.
        """
        parent = tempfile.gettempdir() if parent is None else parent
        remove_left_folders(prefix, parent)
        made = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX, dir=parent))
        lock = os.open(made, os.O_RDONLY)
        # A file system without locks: nobody removes what cannot be locked.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.with_name(made.name.replace(_UNLOCKED_PREFIX, prefix))
        made.rename(self.path)
        # Also at the end of the process, and when the object is forgotten.
        self.remove = finalize(self, _remove, self.path, lock, os.getpid())


def cache_home() -> Path:
    """Return the folder below which programs of this user keep what they can have again.

    Raises:
        FileNotFoundError: the user has none, as in containers whose user has no entry in the list
            of users.

    Any thread.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as err:
        raise FileNotFoundError("expected XDG_CACHE_HOME or HOME; got neither") from err


def make_private(folder: Path) -> None:
    """Make `folder`, where code is kept, if it is missing.

    Raises:
        OSError: it cannot be made; or another user owns it or may write to it, and could so run
            code as this user.

    Any thread.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"{str(folder)!r} belongs to another user, or others may write to it, and what is kept "
            "there is code"
        )


def remove_left_folders(prefix: str, parent: str) -> None:
    """Remove this user's folders whose processes have ended. Any thread."""
    for folder in Path(parent).glob(f"{prefix}*"):
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


def _remove(path: Path, lock: int, owner: int) -> None:
    """Remove the folder at `path` and end its lock. Any thread."""
    if os.getpid() == owner:  # no copy that a model has forked, which may end long before
        shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
