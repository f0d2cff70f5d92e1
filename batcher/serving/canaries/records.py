"""The states of trials on disk, one file a model, so that a trial outlives the server.

    state_folder/trials/MODEL.json    the record
    state_folder/trials/MODEL.lock    held by the server that writes the record

Everything here reads or writes the disk, and runs on the disk's thread.
"""

from __future__ import annotations

import os
from json import dumps, loads
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from twisted.logger import Logger

from batcher.core.error_text import brief

_log = Logger()

Record = dict[str, Any]
"""The state of a trial as `Trial.record` makes it."""

MAX_RECORD_BYTES = 64 << 10
"""Bytes of a file that is read: what the server writes has some hundred."""


def read_records(folder: Path) -> dict[str, Record]:
    """Return the records in `folder`, by the name of the model.

    A file that is no record is named in the log and left out. Disk thread.
    """
    found = {}
    for path in sorted((folder / "trials").glob("*.json")):
        try:
            with path.open("rb") as file:
                text = file.read(MAX_RECORD_BYTES)
            record = loads(text, parse_float=_finite, parse_constant=_finite)
            _check(record)
            found[unquote(path.stem)] = record
        except (OSError, ValueError, RecursionError) as err:
            _log.warn(
                "the state of a trial is left out, and the trial begins anew: {path}: {err}",
                path=str(path),
                err=err,
            )
    return found


def write_record(folder: Path, name: str, record: Record) -> None:
    """Write the record of the model `name`, whole or not at all. Raises OSError. Disk thread."""
    path = record_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(dumps(record, indent=1) + "\n")
    os.replace(new, path)


def record_path(folder: Path, name: str) -> Path:
    """Return the file for the record of the model `name`. Any thread."""
    return folder / "trials" / f"{quote(name, safe=' ')}.json"


def _check(record: Any) -> None:
    if not isinstance(record, dict) or not {"candidate", "stable", "outcome"} <= record.keys():
        raise ValueError("expected the state of a trial; got something else")
    for name in ("candidate", "stable"):
        if not str(record[name]).isdecimal():
            raise ValueError(f"{name}: expected the number of a version; got {brief(record[name])}")


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"expected finite numbers; got {text:.40}")
    return number


def kept_versions(record: Record | None) -> set[str]:
    """Return the numbers of the versions that a trial needs besides those that settings name."""
    if record is None:
        return set()
    tried, stable = str(record["candidate"]), str(record["stable"])
    return {"running": {tried, stable}, "promoted": {tried}}.get(record["outcome"], {stable})
