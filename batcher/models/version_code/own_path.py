"""The folders that a model puts into `sys.path`: what is imported from them is the model's own.

    import sys
    sys.path.insert(0, "/models/shared")     # in m/1/code.py
    import features                          # /models/shared/features.py, for this model alone

Python would keep `features` in `sys.modules` for all models: the next model that means another
`features`, or the next version, would get this one. So each such folder becomes a package, as the
model's own folder is one. The path is put back after the load. The model's imports go on to find
the folders, in `predict` too. A `.zip` file counts as a folder (`zipped.py`).

A folder of installed libraries (`pip install --target`) belongs to all models, since many libraries
cannot be imported twice in a process. Such a folder stays in `sys.path`, at the end. So does a
wheel, which is a `.zip` file of one library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import NamedTuple

from batcher.models.version_code.names import folder_of, package_name, parts_of
from batcher.models.version_code.sources import own
from batcher.models.version_code.zipped import keep_zipped, top_names

_LIBRARIES = frozenset({"site-packages", "dist-packages"})
"""Names of folders of installed libraries."""

_before: dict[str, list[str]] = {}
"""By package: `sys.path` as it was before the model changed it."""

_after: dict[str, list[str]] = {}
"""By package: the folders of `sys.path` at the end of the load."""

_of_models: dict[str, set[str]] = {}
"""By package: the folders that the model has put into `sys.path`, as far as imports have asked."""


class Folder(NamedTuple):
    """A folder in `sys.path`.

    Attributes:
        path: the folder's full path.
        is_own: whether its modules are the model's own.
    """

    path: str
    is_own: bool


def begin(package: str) -> None:
    """Remember `sys.path`, which the model of `package` may change from now on. Any thread."""
    if package not in _before:
        home = os.path.join(folder_of(package), "")
        # What an earlier load has left there of the model's own folder is put there again.
        _before[package] = [each for each in sys.path if not f"{each}/".startswith(home)]


def end(package: str) -> None:
    """Remember the folders that the model of `package` has put into `sys.path`. Any thread."""
    if package in _before:
        _after[package] = _folders_of(package)


def forget(package: str) -> None:
    """Forget all of a package, whose model is gone. Any thread."""
    _before.pop(package, None)
    _after.pop(package, None)
    put = _of_models.pop(package, set())
    # What the model has put there since it was loaded, in `predict`, was not put back.
    if gone := put.difference(*list(_of_models.values())):
        sys.path[:] = [each for each in sys.path if each not in gone]


def folders(package: str) -> list[Folder]:
    """Return the folders of `sys.path` for the model of `package`, in order. Any thread."""
    begin(package)  # for a process that the model has started
    before = _before[package]
    found = []
    for path in _folders_of(package):
        is_own = path not in before and not holds_libraries(path)
        if is_own:
            _own(package, path)
        # Of a folder that another model has put there nothing is found.
        if is_own or not any(path in each for each in list(_of_models.values())):
            found.append(Folder(path, is_own))
    return found


def _own(package: str, path: str) -> None:
    """Note that the model of `package` has put `path` into `sys.path`. Any thread."""
    known = _of_models.setdefault(package, set())
    if path not in known:
        keep_zipped(package, path)
        known.add(path)


def _folders_of(package: str) -> list[str]:
    """Return `sys.path` as the model of `package` sees it. Any thread."""
    now, before = sys.path, _before[package]
    # Another instance finds the modules imported that have put folders into the path.
    known = _after.get(package)
    listed = [*known, *(each for each in now if each not in before)] if known else now
    strings = (each for each in listed if isinstance(each, str))  # Python skips all others
    return list(
        dict.fromkeys(each if each in before else os.path.abspath(each) for each in strings)
    )


def holds_libraries(folder: str) -> bool:
    """Return whether `folder` holds installed libraries, or is a part of one. Any thread.

    OpenCV, for one, puts the folder `site-packages/cv2` into the path to find what it is made of.
    """
    if not _LIBRARIES.isdisjoint(folder.split(os.sep)):
        return True
    if os.path.isfile(os.path.join(folder, "__init__.py")):
        folder = os.path.dirname(folder)
    try:
        names = os.listdir(folder) if os.path.isdir(folder) else top_names(folder)
    except OSError:
        return False
    return any(name.endswith((".dist-info", ".egg-info")) or name == "EGG-INFO" for name in names)


def is_of_folder(file: str, folder: str) -> bool:
    """Return whether `file` lies in `folder`, and in no installed library there. Any thread."""
    below = file.removeprefix(os.path.join(folder, ""))
    return below != file and _LIBRARIES.isdisjoint(below.split(os.sep))


def without_own(path: Iterable[str], before: list[str]) -> list[str]:
    """Return `sys.path` as it was `before`, and behind it the libraries of `path`. Any thread."""
    return [*before, *(each for each in path if each not in before and holds_libraries(each))]


def package_over(owner: str, folder: str) -> str:
    """Return the package over `folder`, which the model of the package `owner` put into the path.

    A folder in the model's own folder is a package in the model's. Any thread.
    """
    home = folder_of(owner)
    for base in (home, os.path.realpath(home)):
        if folder == base:
            return owner
        below = folder.removeprefix(os.path.join(base, "")).split(os.sep)
        if folder.startswith(os.path.join(base, "")) and all(map(str.isidentifier, below)):
            return ".".join((owner, *below))
    number, _ = parts_of(owner)
    package = package_name(folder, number)
    own(package, owner)
    return package
