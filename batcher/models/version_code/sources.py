"""The text of the `.py` files of models, read when a model is loaded first.

A package over a folder that a model has put into `sys.path` (`own_path.py`) has no texts of its own
but those of the model's package, its owner.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from batcher.models.version_code.names import folder_of

_sources: dict[str, dict[str, bytes]] = {}
"""By package: the text of each `.py` file, by its path."""

_owners: dict[str, str] = {}
"""By package over a folder in `sys.path`: the package of the model that has put it there."""

_CHANGES_PATH = re.compile(rb"\bsys\b|\baddsitedir\b")
"""What a file says that puts folders into `sys.path`."""


def keep_sources(package: str, is_whole: bool = True) -> None:
    """Read the `.py` files of a package now, for every import that is to come.

    Only those directly in its folder unless `is_whole`: the folder of a single file may hold
    anything, and whatever else it imports is read from the disk. Any thread.
    """
    kept = _sources[package] = {}
    for path in Path(folder_of(package)).glob("**/*.py" if is_whole else "*.py"):
        with suppress(OSError):  # an import of that file will say so
            kept[str(path)] = path.read_bytes()


def keep_text(package: str, path: str, text: bytes) -> None:
    """Keep `text`, which was read for a package at `path`, for imports to come. Any thread."""
    _sources.setdefault(package, {})[path] = text


def drop_sources(package: str) -> list[str]:
    """Forget what was read of a package; return the packages that it owned. Any thread."""
    _sources.pop(package, None)
    owned = [each for each, owner in list(_owners.items()) if owner == package]
    for each in owned:
        _owners.pop(each, None)
    return owned


def own(package: str, owner: str) -> None:
    """Have `package`, over a folder in `sys.path`, belong to the package `owner`. Any thread."""
    _owners[package] = owner


def owner_of(package: str) -> str:
    """Return the package of the model that `package` belongs to. Any thread."""
    return _owners.get(package, package)


def packages() -> list[str]:
    """Return all packages whose files were read. Any thread."""
    return list(_sources)


def sources_of(package: str) -> dict[str, bytes]:
    """Return the texts that were read for a package, by the files' paths. Any thread."""
    return _sources.get(owner_of(package), {})


def may_change_path(package: str, text: bytes) -> bool:
    """Return whether `text`, of one file, or a file of the package may put folders into `sys.path`.

    Any thread.
    """
    texts = (text, *sources_of(package).values())
    return any(_CHANGES_PATH.search(each) for each in texts)


def is_kept_below(package: str, folder: str) -> bool:
    """Return whether a file below `folder` was read for the package. Any thread."""
    return any(path.startswith(os.path.join(folder, "")) for path in sources_of(package))
