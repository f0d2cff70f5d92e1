"""The notes of a server about its jobs: one small file for each, in the folder of `jobs.folder`.

A note is replaced as a whole, so a server that is killed finds each as it was before or after. A
file that is no note is left where it is, and named in the log. Disk thread.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.logger import Logger

from batcher.core.error_text import summary
from batcher.serving.jobs.entry import JobEntry, entry_of
from batcher.serving.jobs.journal import replace_file

_log = Logger()


class JobNotes:
    """The folder of notes."""

    def __init__(self, folder: Path) -> None:
        """Keep notes in `folder`, which is made when it is needed."""
        self._folder = folder

    def read(self) -> list[JobEntry]:
        """Return all jobs, the oldest first. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for path in self._folder.glob("*.json"):
            try:
                found.append(entry_of(json.loads(path.read_bytes())))
            except (ValueError, KeyError, TypeError, OSError) as err:
                _log.warn(
                    "{path}: expected the note of a job: {why}", path=str(path), why=summary(err)
                )
        return sorted(found, key=lambda entry: (entry.created, entry.id))

    def write(self, id: str, note: bytes) -> None:
        """Replace the note of a job. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._path(id), note)

    def remove(self, id: str) -> None:
        """Remove the note of a job."""
        self._path(id).unlink(missing_ok=True)

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.json"
