"""Versions from stores on the local disk: bounded in bytes, shared by several servers.

    listing-<digest>.json              the last listing of a store, for when the store is away
    <digest>.lock                      held by who serves the version (shared) or fetches it (alone)
    <digest>/entry.json                which version this is, its listing, and its bytes
    <digest>/partial/, <digest>/notes/ what has been fetched of it
    <digest>/files/<name>/<version>/   the version, whole; Triton's config.pbtxt lies above it
    <digest>/complete                  says that it is whole; last used when the file was changed

The digest is that of a version's listing, so other content under the same number lies beside it.
Where a version does not fit into the bound, or onto the disk, those that were used longest ago are
removed, and never one that somebody serves: its lock is taken. A server that is killed lets go of
its locks with its life.

What lies here is code that the server runs. So the folder belongs to the server's user alone.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from batcher.core.own_folder import cache_home, make_private
from batcher.errors import ConfigError
from batcher.serving.repository.stores.locks import FileLock, locked, try_lock
from batcher.serving.repository.stores.store import StoredFile
from batcher.serving.repository.stores.versions import StoredVersion

Fetch = Callable[[Path, Path], None]
"""Fetches a version into a folder, with notes in another one; goes on with what is there."""


class Entry(NamedTuple):
    """A version in the cache: its digest, its bytes, when it was used, and whether it is whole."""

    digest: str
    nbytes: int
    used: float
    is_whole: bool


class StoreCache:
    """Keeps versions on the disk. The thread of the stores, or of a command."""

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        """Keep at most `max_bytes` in `folder`, which is looked for when it is needed first.

        Without a folder it is the one that this user's programs keep such things in.
        """
        self.max_bytes = max_bytes
        self._given = folder
        self._held: dict[str, FileLock] = {}

    @cached_property
    def folder(self) -> Path:
        """Where versions lie. Raises ConfigError: none was named, and the user has no home."""
        try:
            given = self._given or cache_home() / "batcher"
        except OSError as err:
            raise ConfigError(f"store_cache: expected a folder; {err}") from err
        return given / "models"

    def has(self, version: StoredVersion) -> bool:
        """Return whether the version is here as a whole."""
        return (self.folder / version.digest / "complete").is_file()

    def hold(self, version: StoredVersion) -> bool:
        """Keep the version from being removed, if it is here; return whether it is."""
        if version.digest not in self._held:
            if not self.has(version):
                return False
            lock = try_lock(self._lock_path(version.digest), alone=False)
            if lock is None:
                return False
            self._held[version.digest] = lock
        if not self.has(version):  # it was removed before the lock was taken
            self._held.pop(version.digest).release()
            return False
        os.utime(self.folder / version.digest / "complete")
        return True

    def hold_only(self, digests: frozenset[str]) -> None:
        """Let go of all versions but those with these digests."""
        for digest in self._held.keys() - digests:
            self._held.pop(digest).release()

    def fill(self, version: StoredVersion, fetch: Fetch, wait: Callable[[], None]) -> None:
        """Have `fetch` fetch the version, unless it is here, and hold it.

        `wait` is called again and again while another process fetches the version.

        Raises:
            ConfigError: the version does not fit, or there can be no cache.
            OSError: the disk fails; and what `fetch` raises.
        """
        self._make_folder()
        while not self.hold(version):
            lock = try_lock(self._lock_path(version.digest), alone=True)
            if lock is None:
                wait()
                continue
            try:
                if not self.has(version):
                    self._fill(version, fetch)
            finally:
                lock.release()

    def _fill(self, version: StoredVersion, fetch: Fetch) -> None:
        entry = self.folder / version.digest
        with locked(self.folder / "lock"):
            self._make_room(version)
            entry.mkdir(exist_ok=True)
            entry.joinpath("entry.json").write_text(json.dumps(_about(version)))
        partial, target = entry / "partial", version.root_in(self.folder)
        fetch(partial, entry / "notes")
        _sync(partial)
        shutil.rmtree(entry / "files", ignore_errors=True)
        target.parent.mkdir(parents=True)
        partial.rename(target)
        shutil.rmtree(entry / "notes", ignore_errors=True)
        entry.joinpath("complete").touch()
        _sync_folder(entry)

    def _make_room(self, version: StoredVersion) -> None:
        """Remove what was used longest ago until `version` fits. Raises ConfigError."""
        others = [each for each in self.entries() if each.digest != version.digest]
        held = sum(each.nbytes for each in others)
        # Nothing is removed for a version that cannot fit even then.
        lack = self._lack(version, 0, held)
        for each in sorted(others, key=lambda one: one.used):
            if lack or not self._lack(version, held):
                break
            held -= each.nbytes * self._remove(each.digest)
        if lack := lack or self._lack(version, held):
            raise ConfigError(lack)

    def _lack(self, version: StoredVersion, held: int, removable: int = 0) -> str:
        """Return which room `version` lacks; empty if it fits.

        Others hold `held` bytes; `removable` bytes are counted as free space of the disk.
        """
        room = max(self.max_bytes - held, 0)
        if version.nbytes > room:
            return (
                f"expected room for {version.nbytes} bytes in the cache {str(self.folder)!r}; got "
                f"{room}, since the rest is in use: store_cache_bytes is {self.max_bytes}"
            )
        missing = version.nbytes - _bytes_in(self.folder / version.digest)
        free = shutil.disk_usage(self.folder).free + removable
        if missing > free:
            return (
                f"expected {missing} bytes more on the disk of the cache {str(self.folder)!r}; got "
                f"{free}"
            )
        return ""

    def _remove(self, digest: str) -> bool:
        """Remove a version, unless somebody serves or fetches it; return whether it is gone."""
        lock = try_lock(self._lock_path(digest), alone=True)
        if lock is None:
            return False
        self.folder.joinpath(digest, "complete").unlink(missing_ok=True)
        shutil.rmtree(self.folder / digest, ignore_errors=True)
        lock.remove()
        return True

    def entries(self) -> list[Entry]:
        """Return what is here."""
        return list(self._entries())

    def _entries(self) -> Iterator[Entry]:
        for about in self.folder.glob("*/entry.json"):
            complete = about.with_name("complete")
            with suppress(OSError):  # it is being removed
                is_whole = complete.is_file()
                used = (complete if is_whole else about).stat().st_mtime
                yield Entry(about.parent.name, _bytes_said(about), used, is_whole)

    def whole_of(self, store: str) -> list[StoredVersion]:
        """Return the versions of a store that are here as a whole; those used last come last."""
        entries = sorted(self.entries(), key=lambda each: each.used)
        found = [self._version(each.digest) for each in entries if each.is_whole]
        return [each for each in found if each is not None and each.store == store]

    def _version(self, digest: str) -> StoredVersion | None:
        """Return the version that has `digest`; None if it is being removed, or is another one."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((self.folder / digest / "entry.json").read_text())
            files = tuple(StoredFile(*each) for each in about["files"])
            name, _, number = about["version"].rpartition("/")
            version = StoredVersion(
                about["store"], name, number, about["prefix"], files, about["inner"]
            )
            return version if version.digest == digest else None
        return None

    def keep_listing(self, store: str, files: list[StoredFile]) -> None:
        """Keep the listing of a store for when the store is away. Raises OSError, ConfigError.

        A listing that is kept already is left alone, so that the time of the file tells its age.
        """
        self._make_folder()
        path, text = self._listing_path(store), json.dumps(sorted(files))
        with suppress(OSError, UnicodeDecodeError):
            if path.read_text() == text:
                return
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(text)
        partial.replace(path)

    def kept_listing(self, store: str, min_age_s: float = 0.0) -> list[StoredFile] | None:
        """Return the last listing that was kept of a store; None if there is none.

        A listing is passed over that was another one less than `min_age_s` ago.
        """
        path = self._listing_path(store)
        with suppress(OSError, ValueError, TypeError):
            if time.time() - path.stat().st_mtime >= min_age_s:
                return [StoredFile(*each) for each in json.loads(path.read_text())]
        return None

    def _make_folder(self) -> None:
        """Make the folder if it is missing. Raises ConfigError."""
        try:
            make_private(self.folder)
        except OSError as err:
            raise ConfigError(
                f"store_cache: expected a folder that this user alone can write to; {err}"
            ) from err

    def _lock_path(self, digest: str) -> Path:
        return self.folder / f"{digest}.lock"

    def _listing_path(self, store: str) -> Path:
        return self.folder / f"listing-{sha256(store.encode()).hexdigest()[:32]}.json"


def _about(version: StoredVersion) -> dict[str, Any]:
    """Return what is kept of a version beside its files: what it is known by, and its bytes."""
    return {
        "store": version.store,
        "version": version.title,
        "prefix": version.prefix,
        "inner": version.inner,
        "bytes": version.nbytes,
        "files": version.files,
    }


def _bytes_said(about: Path) -> int:
    """Return the bytes that the file `about` an entry says; those on the disk if it says none.

    The machine may have stopped before the file was on the disk. Raises OSError.
    """
    try:
        return int(json.loads(about.read_text())["bytes"])
    except (ValueError, KeyError, TypeError):
        return _bytes_in(about.parent)


def _bytes_in(folder: Path) -> int:
    """Return the bytes that the files below `folder` take on the disk: of parts, those there."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _sync(folder: Path) -> None:
    """Have the disk hold all files below `folder`, before anything says that they are whole."""
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
