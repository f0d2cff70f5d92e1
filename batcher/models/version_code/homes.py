"""The package in which a plain name, as in `import features`, means a module of the model.

    where the module is                          its package
    a file beside the importing one's package    that package
    a file beside `model.yaml`                   the model's
    a folder that the model put into `sys.path`  the folder's, see `own_path.py`
    anywhere else                                none: an installed module

Names of the standard library mean that library. A folder without `__init__.py` comes after every
installed module of its name, as in Python.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.machinery import PathFinder

from batcher.models.version_code import own_path
from batcher.models.version_code.names import folder_of
from batcher.models.version_code.search import find_in
from batcher.models.version_code.sources import owner_of

_found: dict[str, dict[str, tuple[list[str], str]]] = {}
"""By package and plain name: `sys.path` at the search, and the home that was found."""


def is_beside(package: str, name: str) -> bool:
    """Return whether the plain `name` means a file of the package, and nothing of Python's own.

    Any thread.
    """
    if name in sys.stdlib_module_names:
        return False
    spec = find_in(package, folder_of(package), name)
    return spec is not None and (spec.loader is not None or not is_installed(package, name))


def home_of(package: str, name: str) -> str:
    """Return the package in which the plain `name` means a module of the model.

    `package` is the one of the module that imports. Returns the full name; empty for a name that
    means no module of the model. Any thread.
    """
    found = _found.setdefault(package, {})
    path, home = found.get(name, (None, ""))
    if path == sys.path:
        return home
    home = _search(package, name)
    # A file that is not there yet may be written by the model.
    if home or name in sys.modules:
        found[name] = list(sys.path), home
    return home


def forget_homes(package: str) -> None:
    """Forget what was found for the modules of `package`. Any thread."""
    _found.pop(package, None)


def _search(package: str, name: str) -> str:
    """Return what `home_of` does, looked up on the disk. Any thread."""
    owner = owner_of(package)
    for each in dict.fromkeys((package, owner)):
        if is_beside(each, name):
            return each
    return "" if name in sys.stdlib_module_names else _on_path(owner, name)


def _on_path(owner: str, name: str) -> str:
    """Return the package over the folder of `sys.path` where the model has `name`. Any thread."""
    folders = own_path.folders(owner)
    if not any(folder.is_own for folder in folders):
        return ""
    without_init = ""
    for folder in folders:
        if not folder.is_own:
            if _is_in([folder.path], name):
                return ""
        elif spec := find_in(owner, folder.path, name):
            if spec.loader is not None:
                return own_path.package_over(owner, folder.path)
            without_init = without_init or folder.path
    return own_path.package_over(owner, without_init) if without_init else ""


def is_installed(package: str, name: str) -> bool:
    """Return whether `name` is a module outside of the model. Any thread."""
    return _is_in([each.path for each in own_path.folders(package) if not each.is_own], name)


def _is_in(folders: list[str], name: str) -> bool:
    """Return whether one of `folders` has a module `name`, of which it is the home. Any thread."""
    with suppress(Exception):  # whatever stands in the way of a finder of another library
        spec = PathFinder.find_spec(name, folders)
        return spec is not None and spec.origin is not None
    return True
