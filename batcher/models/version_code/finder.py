"""Finds and reads the modules of packages over version folders.

`.py` files are taken from what was read when the definition was loaded (`keep_sources`). A process
that was started by a model has read nothing, and takes them from the disk, like all other modules:
extensions, and bytecode that has no source.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from batcher.models.version_code.local_imports import with_local_imports
from batcher.models.version_code.names import folder_of, package_of

_sources: dict[str, dict[str, bytes]] = {}
"""By package: the text of each `.py` file, by its path."""

_folders: set[str] = set()
"""All version folders that were loaded, as named and without links; a separator ends each."""


def keep_sources(package: str) -> None:
    """Read the `.py` files of a package now, for every import that is to come. Any thread."""
    folder = folder_of(package)
    _folders.update(os.path.join(each, "") for each in (folder, os.path.realpath(folder)))
    kept = _sources[package] = {}
    for path in Path(folder).rglob("*.py"):
        with suppress(OSError):  # an import of that file will say so
            kept[str(path)] = path.read_bytes()


def drop_sources(package: str) -> None:
    """Forget what `keep_sources` has read. Any thread."""
    _sources.pop(package, None)


class VersionFinder(MetaPathFinder):
    """Finds packages over version folders, and the modules in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module `fullname` comes from, None if it is none of a version.

        Any thread.
        """
        package = package_of(fullname)
        if not package:
            return None
        if fullname == package:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [folder_of(package)]
            return spec
        found = (find_in(folder, fullname) for folder in path or ())
        return next(filter(None, found), None)


def find_in(folder: str, fullname: str) -> ModuleSpec | None:
    """Return where the module `fullname` of a version comes from, if it is in `folder`.

    Any thread.
    """
    below = os.path.join(folder, fullname.rpartition(".")[2])
    sources = _sources.get(package_of(fullname), {})
    for file, locations in ((os.path.join(below, "__init__.py"), [below]), (f"{below}.py", None)):
        if file in sources:
            loader = ModelSource(fullname, file)
            return spec_from_file_location(
                fullname, file, loader=loader, submodule_search_locations=locations
            )
    # A new one each time: a finder that is kept takes its time to see a new file.
    finder = FileFinder(
        folder,
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (ModelSource, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )
    return finder.find_spec(fullname)


def is_beside(package: str, name: str) -> bool:
    """Return whether the plain `name` means a file of the version, and nothing of Python's own.

    Any thread.
    """
    if name in sys.stdlib_module_names:
        return False
    spec = find_in(folder_of(package), f"{package}.{name}")
    # A folder without `__init__.py`, say of data, hides no installed module.
    return spec is not None and spec.loader is not None


def home_of(package: str, name: str) -> str:
    """Return the package in which the plain `name` means a module of the version.

    That is `package` for a file beside the model. It is a package below for the only file of that
    name in a folder which the model puts into `sys.path`: there, the module would stand in
    `sys.modules` for all models, and be the old one for the next version.

    Returns:
        The package's full name; empty for a name that means no file of the version.

    Any thread.
    """
    if is_beside(package, name):
        return package
    kept = _sources.get(package, {})
    if name in sys.stdlib_module_names or not any(b"sys.path" in text for text in kept.values()):
        return ""
    ends = (os.path.join(os.sep, name, "__init__.py"), f"{os.sep}{name}.py")
    found = [path.removesuffix(end) for path in kept for end in ends if path.endswith(end)]
    if len(found) != 1 or _is_installed(name):
        return ""
    parts = Path(found[0]).relative_to(folder_of(package)).parts
    return "" if "." in "".join(parts) else ".".join((package, *parts))


def _is_installed(name: str) -> bool:
    """Return whether `name` is found outside of all version folders. Any thread."""
    folders = tuple(_folders)
    paths = [
        each for each in sys.path if not f"{os.path.normpath(each)}{os.sep}".startswith(folders)
    ]
    with suppress(Exception):  # whatever stands in the way of a finder of another library
        spec = PathFinder.find_spec(name, paths)
        # A folder without `__init__.py` comes after every module of its name.
        return spec is not None and spec.origin is not None
    return True


class ModelSource(SourceFileLoader):
    """Reads one `.py` file of a version."""

    def get_data(self, path: str) -> bytes:
        """Return the text of the file. Any thread."""
        kept = _sources.get(package_of(self.name), {}).get(path)
        return kept if kept is not None else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text of the file, whatever bytecode there is. Any thread."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(  # type: ignore[override]  # typeshed has a static method of a base class
        self, data: Any, path: Any, **options: Any
    ) -> CodeType:
        """Compile `data`; plain imports mean the files beside the model. Any thread."""
        package = package_of(self.name)
        is_package = self.is_package(self.name)

        def home(name: str) -> str:
            found = home_of(package, name)
            # A file `tokenizers.py` that imports `tokenizers` means the library.
            return found if is_package or f"{found}.{name}" != self.name else ""

        tree = with_local_imports(ast.parse(data, path), home)
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code
