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


def keep_sources(package: str) -> None:
    """Read the `.py` files of a package now, for every import that is to come. Any thread."""
    kept = _sources[package] = {}
    for path in Path(folder_of(package)).rglob("*.py"):
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
        own = self.name[len(package) + 1 :]
        is_package = self.is_package(self.name)

        def is_local(name: str) -> bool:
            # A file `tokenizers.py` that imports `tokenizers` means the library.
            return (is_package or name != own) and is_beside(package, name)

        tree = with_local_imports(ast.parse(data, path), package, is_local)
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code
