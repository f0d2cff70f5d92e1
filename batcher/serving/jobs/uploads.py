"""Files that clients have uploaded for batches, each beside a note of what it is.

    uploads/file-ID.openai.jsonl.part    a file that arrives; gone when its client or the server is
    uploads/file-ID.openai.jsonl         the file, whole and on the disk
    uploads/file-ID.json                 its note, written last: a file without a note is removed

A file belongs to the API key that sent it; all clients without a key share theirs. Of a key only
a digest is noted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakSet, finalize

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from batcher.config.job_settings import UploadSettings
from batcher.core.error_text import brief, summary
from batcher.errors import InvalidInput, QueueFull, TooLarge, Unavailable, UnknownJob
from batcher.serving.jobs.held_files import HeldFiles, UploadedFile
from batcher.serving.jobs.journal import open_own, replace_file, sync_folder
from batcher.workers.pool import CpuPool

_log = Logger()

END = ".openai.jsonl"
MOST_ARRIVING = 32
"""Files that arrive at a time."""

MOST_FILES = 10_000
"""Files that are kept, whatever their size: each has a note in memory."""


def owner_of(key: str) -> str:
    """Return whom files and batches of the API key `key` belong to."""
    return blake2b(key.encode(), digest_size=16).hexdigest() if key else ""


class ArrivingFile:
    """A file that arrives. One thread at a time; whoever lets go of it removes it, unless kept.

    Attributes:
        owner: whose it is.
        nbytes: bytes that have come.
        most: most bytes that it may have; 0 once it is dropped.
    """

    def __init__(self, folder: Path, most: int, owner: str) -> None:
        """Write into `folder`, at most `most` bytes; nothing is opened yet."""
        self.owner = owner
        self.nbytes = 0
        self.most = most
        self._path = folder / f"file-{uuid4().hex}{END}.part"
        self._file: Any = None
        self._discard: Any = None

    def write(self, piece: bytes) -> None:
        """Append `piece`. Raises TooLarge, Unavailable. A thread of the disk's."""
        self.nbytes += len(piece)
        if self.nbytes > self.most:
            raise TooLarge(
                f"file: expected at most {self.most} bytes (jobs.uploads.max_file_bytes, "
                "or what max_bytes leaves); got more"
            )
        try:
            self._open().write(piece)
        except OSError as err:
            raise _not_stored(err) from err

    def keep(self) -> str:
        """Have the disk hold the whole file; return its id. Raises Unavailable. Likewise."""
        try:
            file = self._open()
            file.flush()
            os.fsync(file.fileno())
            path = self._path.with_suffix("")
            self._path.replace(path)
            self._discard.detach()
            file.close()
            sync_folder(path.parent)
        except OSError as err:
            raise _not_stored(err) from err
        return path.name.removesuffix(END)

    def drop(self) -> None:
        """Remove what has come: the rest is not wanted. Nothing may be writing it."""
        self.most = 0
        if self._discard is not None:
            self._discard()

    def _open(self) -> Any:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_own(self._path, "xb")
            self._discard = finalize(self, _discard, self._file, self._path)
        return self._file


def _discard(file: Any, path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        file.close()
    except OSError:  # of a full disk: the rest is of no use anyway
        _log.warn("{path}: what had come of a file is removed", path=str(path))


def _not_stored(error: OSError) -> Unavailable:
    reason = error.strerror or type(error).__name__
    return Unavailable(f"file: the server cannot store it: {reason}", retry_after=0)


class Uploads:
    """The uploaded files of one server. Reactor thread, but where it says otherwise."""

    def __init__(
        self,
        settings: UploadSettings,
        folder: Path,
        keep_s: float,
        disk: CpuPool,
        unix_time: Callable[[], float],
    ) -> None:
        """Keep files in `folder` for `keep_s` seconds; `disk` reads and writes them."""
        self.disk = disk
        self._settings = settings
        self._folder = folder
        self._keep_s = keep_s
        self._unix_time = unix_time
        self._files = HeldFiles()
        self._arriving: WeakSet[ArrivingFile] = WeakSet()
        self._is_read = False

    def start(self) -> Deferred[Any]:
        """Read the notes, and remove what has none."""
        read: Deferred[list[UploadedFile]] = self.disk.run(0, inf, partial(_read, self._folder))
        return read.addCallback(self._known)

    def _known(self, files: list[UploadedFile]) -> None:
        for file in files:
            self._files.add(file)
        self._is_read = True

    def check_read(self) -> None:
        """Check that the notes are read. Raises Unavailable."""
        if not self._is_read:
            raise Unavailable("the files of clients are still being read")

    def arrive(self, owner: str, declared: int) -> ArrivingFile:
        """Return a place for a file of `owner`, who has `declared` so many bytes of it.

        Raises Unavailable, TooLarge.
        """
        self.check_read()
        share = self._settings.key_share
        arriving = [file for file in self._arriving if file.most > 0]
        of_all = len(self._files), self._files.nbytes
        left = self._room(of_all, arriving, 1.0, declared, "jobs.uploads.max_bytes")
        if share < 1:
            own = [file for file in arriving if file.owner == owner]
            held = self._files.held_by(owner)
            left_to_key = self._room(held, own, share, declared, "jobs.uploads.key_share")
            left = min(left, left_to_key)
        most = min(self._settings.max_file_bytes, left, declared or left)
        file = ArrivingFile(self._folder, most, owner)
        self._arriving.add(file)
        return file

    def _room(
        self,
        held: tuple[int, int],
        arriving: Sequence[ArrivingFile],
        share: float,
        declared: int,
        setting: str,
    ) -> int:
        """Return the bytes that are left of a `share` of everything, as `setting` says.

        `held` are files and bytes. Raises QueueFull, TooLarge.
        """
        files, nbytes = held
        if len(arriving) >= max(int(MOST_ARRIVING * share), 1):
            raise QueueFull(f"{len(arriving)} files arrive already ({setting})")
        most = int(self._settings.max_bytes * share)
        left = most - nbytes - sum(file.most for file in arriving)
        if declared > left or left <= 0:
            raise TooLarge(
                f"file: expected at most {most} bytes of all files ({setting}); this one is too "
                "much: delete others"
            )
        if files >= max(int(MOST_FILES * share), 1):
            raise TooLarge(f"file: expected at most {files} files ({setting}): delete others")
        return left

    def keep(self, arrived: ArrivingFile, filename: str, keep_s: float) -> UploadedFile:
        """Note a whole file, kept for `keep_s` seconds at most. Raises Unavailable. Any thread."""
        id, now = arrived.keep(), self._unix_time()
        expires = now + min(keep_s, self._keep_s)
        file = UploadedFile(id, arrived.owner, filename, arrived.nbytes, now, expires)
        try:
            replace_file(self._folder / f"{id}.json", json.dumps(file._asdict()).encode())
        except OSError as err:
            self.path(id).unlink(missing_ok=True)
            raise _not_stored(err) from err
        return file

    def add(self, file: UploadedFile) -> None:
        """Let clients find `file`, which was noted."""
        self._files.add(file)

    def find(self, id: str, owner: str) -> UploadedFile:
        """Return a file of `owner`. Raises UnknownJob, Unavailable."""
        self.check_read()
        file = self._files.find(id, owner)
        if file is None:
            raise UnknownJob(f"expected the id of a file; got {brief(id, 100)}")
        return file

    def of(self, owner: str) -> Sequence[UploadedFile]:
        """Return the files of `owner`, the oldest first. Raises Unavailable."""
        self.check_read()
        return self._files.of(owner)

    def path(self, id: str) -> Path:
        """Return where the file `id` is."""
        return self._folder / f"{id}{END}"

    def remove(self, id: str, owner: str, in_use: set[str]) -> Deferred[Any]:
        """Remove a file of `owner`.

        Raises UnknownJob; InvalidInput: it is one `in_use`; QueueFull: it is still there.
        """
        file = self.find(id, owner)
        if id in in_use:
            raise InvalidInput(f"file {id}: expected one that no batch waits for: cancel it first")
        removed: Deferred[Any] = self.disk.run(0, inf, partial(_remove, self.path(id)))
        self._files.remove(file)
        return removed

    def sweep(self, in_use: Callable[[], set[str]]) -> None:
        """Remove the files whose time is over, but those `in_use`."""
        ended = self._files.ended(self._unix_time())
        kept = in_use() if ended else set()
        for file in ended:
            if file.id not in kept:
                removed = maybeDeferred(self.remove, file.id, file.owner, kept)
                removed.addErrback(lambda failure: _log.warn("{why}", why=failure.value))


def _read(folder: Path) -> list[UploadedFile]:
    """Return the files that have a note, and remove all others. Disk thread."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for path in folder.glob("file-*.json"):
        try:
            file = UploadedFile(**json.loads(path.read_bytes()))
            # A file of another size was not whole when power was lost.
            if path.with_name(f"{file.id}{END}").stat().st_size == file.nbytes:
                found.append(file)
        except (ValueError, TypeError, OSError) as err:
            _log.warn(
                "{path}: expected the note of a file: {why}", path=str(path), why=summary(err)
            )
    names = {name for file in found for name in (f"{file.id}{END}", f"{file.id}.json")}
    for path in folder.glob("file-*"):
        if path.name not in names:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda file: (file.created, file.id))


def _remove(path: Path) -> None:
    """Remove a file, its note first. Disk thread."""
    path.with_name(path.name.removesuffix(END) + ".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
