"""Which models have changed since they were looked at last, by a listing and no more.

    a look:   names, sizes, times and inodes of all files of what serves, or is to serve
    another?  not before it has been the same for STEADY_S: somebody may be writing
    then      the model is compared with what serves, by content too, as at a reload

A model that was compared is not compared again until another listing is seen. So a model that
cannot be loaded is tried once. Two writes within one tick of the file system's clock look the same
from here. So a model whose files are younger than that clock is precise is compared once more.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from batcher.models.file_facts import FRESH_NS
from batcher.serving.repository.listing import Listing, ModelFolder
from batcher.serving.repository.source import paths_of
from batcher.serving.repository.stores.stores import STEADY_S

Marks = frozenset[tuple[Any, ...]]
"""What all files of a model look like."""


class _Look(NamedTuple):
    """What a model looks like, since when, and when one of its files was changed last."""

    marks: Marks
    since: float
    newest_ns: int
    is_stored: bool


class Looks:
    """Remembers what models looked like. Disk thread."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._seen: dict[str, _Look] = {}
        self._compared: dict[str, Marks] = {}

    def changed(self, wanted: Iterable[ModelFolder], served: set[str], now: float) -> list[str]:
        """Return the names of models that are to be compared with what serves.

        Args:
            wanted: what is to serve.
            served: names of models that serve.
            now: the time in seconds.
        """
        folders: dict[str, list[ModelFolder]] = defaultdict(list)
        for folder in wanted:
            folders[folder.name].append(folder)
        names = folders.keys() | served
        self._forget_all_but(names)
        return [name for name in sorted(names) if self._is_due(name, folders[name], now)]

    def _is_due(self, name: str, folders: list[ModelFolder], now: float) -> bool:
        look = _look_at(folders, now)
        before = self._seen.get(name)
        if before is not None and before.marks == look.marks:
            look = look._replace(since=before.since)
        self._seen[name] = look
        is_steady = look.is_stored or now - look.since >= STEADY_S
        return is_steady and self._compared.get(name) != look.marks

    def compared(self, names: Iterable[str]) -> None:
        """Note that models were compared as they looked last."""
        for name in names:
            look = self._seen[name]
            if time.time_ns() - look.newest_ns >= FRESH_NS:
                self._compared[name] = look.marks

    def _forget_all_but(self, names: Iterable[str]) -> None:
        self._seen = {name: look for name, look in self._seen.items() if name in names}
        self._compared = {name: each for name, each in self._compared.items() if name in names}


def _look_at(folders: list[ModelFolder], now: float) -> _Look:
    marks: set[tuple[Any, ...]] = set()
    changed: list[int] = []
    for folder in folders:
        if folder.stored is not None:
            marks.add((folder.version, folder.stored.digest))
            continue
        marks.add((folder.version, str(folder.folder)))
        for path in paths_of(folder):
            with suppress(OSError):  # it has just been removed
                status = os.stat(path)
                times = status.st_mtime_ns, status.st_ctime_ns
                marks.add((folder.version, str(path), status.st_size, *times, status.st_ino))
                changed += times
    # A time in the future never gets old: the clock was set back, or a tool set it.
    wall_ns = time.time_ns()  # now, since a file may have been written while others were looked at
    newest = max((each for each in changed if each <= wall_ns), default=0)
    is_stored = bool(folders) and all(folder.stored is not None for folder in folders)
    return _Look(frozenset(marks), now, newest, is_stored)


def nothing_left(listing: Listing, served: set[str]) -> str:
    """Return why a listing is not believed; empty if it is.

    A volume that is not mounted, and a bucket that was emptied by mistake, have no model at all.
    """
    if not listing.folders and served - {name for name, _ in listing.unread}:
        return (
            "the model repository has no model any more; what serves goes on (a reload takes it "
            "out of service)"
        )
    return ""
