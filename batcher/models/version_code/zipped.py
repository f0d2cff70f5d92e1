"""The modules in a `.zip` file that a model puts into `sys.path`.

    sys.path.insert(0, "/models/shared/features.zip")     # in m/1/code.py
    import features                                       # features.py in that file

Such a file is a folder whose `.py` files, and `.pyc` files beside them, are read when the model's
imports first look into it, as `/models/shared/features.zip/features.py`. Python would look into the
file again at each import: a file that was replaced meanwhile would be read at the places of the old
one.
"""

from __future__ import annotations

import os
from zipfile import BadZipFile, ZipFile, is_zipfile

from batcher.models.version_code.sources import keep_text


def keep_zipped(package: str, folder: str) -> None:
    """Read the modules for `package`, if `folder` is a `.zip` file or in one. Any thread."""
    for name, text in _members(folder).items():
        if name.endswith((".py", ".pyc")):
            keep_text(package, os.path.join(folder, *name.split("/")), text)


def top_names(folder: str) -> set[str]:
    """Return the names at the top of a `.zip` file; none for anything else. Any thread."""
    return {name.partition("/")[0] for name in _members(folder)}


def read_zipped(path: str) -> bytes:
    """Return what lies at `path`, whose beginning is a `.zip` file. Any thread.

    Raises:
        FileNotFoundError: nothing is there.
    """
    folder, name = os.path.split(path)
    try:
        return _members(folder)[name]
    except KeyError:
        raise FileNotFoundError(path) from None


def _members(folder: str) -> dict[str, bytes]:
    """Return what lies in a `.zip` file, or in a folder in one, by names. Any thread."""
    file = folder
    while not os.path.exists(file) and file != os.path.dirname(file):
        file = os.path.dirname(file)
    try:
        if not os.path.isfile(file) or not is_zipfile(file):
            return {}
        start = "".join(f"{each}/" for each in folder[len(file) :].split(os.sep) if each)
        with ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.startswith(start)]
            return {name[len(start) :]: archive.read(name) for name in names}
    except (OSError, BadZipFile):  # an import that finds nothing says so
        return {}
