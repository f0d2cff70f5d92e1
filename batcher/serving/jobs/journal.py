"""The journal of a job: how far it has come, so that a job that was killed goes on from there.

    output is appended ─► output is on the disk (fsync) ─► the journal says its length

The journal is one small file, replaced as a whole, so it is never half written. What lies in the
output behind the length in the journal is cut off when the job goes on: those rows run again. So no
row is lost and none stands there twice, whenever the job is killed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from batcher.core.portions import Position, State
from batcher.errors import ConfigError

RUNNING, FINISHING, DONE, SENT = "running", "finishing", "done", "sent"
"""Rows are left; the parts become the output; the output is there; it was put into a store."""

FINISHED = (DONE, SENT)
"""Stages without anything left to run."""

RESTART = "--restart begins anew (`restart` of a server's job), and overwrites what is there"


class Record(NamedTuple):
    """What a journal says.

    Attributes:
        identity: input and model of the job; a job goes on only with the same ones.
        stage: how far the job is.
        position: where reading goes on.
        rows: rows that were read, good and bad.
        failed: those among them without an answer.
        done: the part of the input that was read, from 0 to 1.
        lengths: bytes of each part of the output.
        errors_length: bytes of the file of errors.
        writer: what the writer must know.
    """

    identity: dict[str, Any]
    stage: str
    position: Position
    rows: int
    failed: int
    done: float
    lengths: list[int]
    errors_length: int
    writer: State


class Journal:
    """The file of a journal. Any thread, one at a time."""

    def __init__(self, path: Path) -> None:
        """Keep the journal at `path`."""
        self.path = path

    def read(self) -> Record | None:
        """Return what the journal says; None if there is none. Raises ConfigError."""
        try:
            return Record(**json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as err:
            raise ConfigError(f"{self.path}: expected the journal of a job: {RESTART}") from err

    def write(self, record: Record) -> None:
        """Replace what the journal says; it is on the disk when this returns."""
        replace_file(self.path, json.dumps(record._asdict()).encode())

    def remove(self) -> None:
        """Leave nothing."""
        with suppress(FileNotFoundError):
            self.path.unlink()


def replace_file(path: Path, content: bytes) -> None:
    """Have `path` hold `content`, on the disk; nobody ever sees half of it. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    with open_own(new, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def open_own(path: Path, mode: str) -> BinaryIO:
    """Open a file of a job's own, which is no link to elsewhere and no pipe. Raises OSError."""
    file: Any = open(path, mode, opener=_open_no_link)  # noqa: SIM115  # the caller closes it
    return file  # type: ignore[no-any-return]  # `mode` is one of bytes


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def sync_folder(folder: Path) -> None:
    """Have the disk hold what was renamed in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_same(record: Record, identity: dict[str, Any]) -> None:
    """Check that a job goes on with what it began with. Raises ConfigError, which says what."""
    # Through JSON, as the journal's own: there are no tuples in it.
    wanted = json.loads(json.dumps(identity))
    changed = [key for key in wanted if record.identity.get(key) != wanted[key]]
    if changed:
        raise ConfigError(
            f"the {' and the '.join(changed)} changed since this job began: {RESTART}"
        )
