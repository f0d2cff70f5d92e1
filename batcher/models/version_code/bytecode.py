"""Python's own loader takes no bytecode of a model's files, and leaves none beside them.

The modules of a model's package have a loader of their own (`finder.py`). But the code of a model
may load a file beside it by itself, as Python's documentation shows:

    spec = importlib.util.spec_from_file_location("helpers", path)

Python would take the `.pyc` of a file that was changed twice within a second and has kept its size,
or whose time is always the same.

Refused: bytecode that is not written at all while a model loads. Libraries that are imported then
would be compiled at each start, and bytecode that lies there already would still be read.
"""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from types import CodeType

from batcher.models.version_code.names import folder_of
from batcher.models.version_code.own_path import is_of_folder
from batcher.models.version_code.sources import packages

_get_code = SourceFileLoader.get_code


def use_no_bytecode() -> None:
    """Have Python's loader leave bytecode of models' files alone. The thread that imports."""
    # For this class of loaders alone, not for its base class, as the checker of types sees it.
    SourceFileLoader.get_code = _code  # type: ignore[method-assign,assignment]


def _code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
    """Return the code of a source file, of a model's file from its source. Any thread."""
    path = loader.get_filename(fullname)
    if not _is_of_model(path):
        return _get_code(loader, fullname)
    code: CodeType = loader.source_to_code(loader.get_data(path), path)
    return code


def _is_of_model(path: str) -> bool:
    """Return whether the file lies in the folder of a model, links followed or not. Any thread."""
    return any(
        is_of_folder(path, folder) or is_of_folder(path, os.path.realpath(folder))
        for folder in map(folder_of, packages())
    )
