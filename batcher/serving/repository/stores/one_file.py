"""A model's `path` that is one file in a store: `s3://bucket/digits.onnx`.

    the file          comes with
    net.onnx          what lies beside it and begins with its name, as `net.onnx.data`
    model.py          the other modules beside it
    of a web server   nothing: a web server need not list its folders

It is version 1 of the model, as a file of this machine is.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from batcher.serving.repository.left_out import MODEL_SUFFIXES
from batcher.serving.repository.stores.store import Store, StoredFile
from batcher.serving.repository.stores.web import WebStore

_ENDS = (*MODEL_SUFFIXES, ".json", ".txt")
"""What the names of such files end with; the last two are those of XGBoost and LightGBM."""

_ADDRESS = re.compile(r"(\w+://.+)/([^/]+?)(?::(\w+))?", re.DOTALL)


class FileAddress(NamedTuple):
    """Where a file is in a store.

    Attributes:
        folder: address of the folder that it lies in.
        file: its name.
        entry: name of the class in a file of Python; empty for the only one.
    """

    folder: str
    file: str
    entry: str


def file_address(address: str) -> FileAddress | None:
    """Return what the plain `address` of one file means; None for that of a folder."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not found[2].lower().endswith(_ENDS):
        return None
    return FileAddress(found[1], found[2], found[3] or "")


class OneFile:
    """A store that has one file, and what belongs to it. As any other store."""

    def __init__(self, folder: Store, file: str) -> None:
        """Show the `file` that lies in the store `folder`."""
        self._folder = folder
        self._file = file

    def list(self, prefix: str) -> list[StoredFile]:
        """Return the file, and what belongs to it; nothing where it is not there."""
        if isinstance(self._folder, WebStore):
            try:
                return [self._folder.head(self._file)]
            except FileNotFoundError:
                return []
        files = [each for each in self._folder.list("") if "/" not in each.name]
        if not any(each.name == self._file for each in files):
            return []
        end = posixpath.splitext(self._file)[1]
        if end == ".py":
            return [each for each in files if each.name.endswith(end)]
        return [each for each in files if each.name.startswith(self._file)]

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return a range of `file`."""
        return self._folder.fetch(file, start, end)
