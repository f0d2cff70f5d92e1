"""Where a module lies in a folder of a model: among the texts that were read, or on the disk."""

from __future__ import annotations

import os
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

from batcher.models.version_code.names import package_of
from batcher.models.version_code.sources import is_kept_below, sources_of


def find_in(
    package: str, folder: str, name: str, source: type[SourceFileLoader] = SourceFileLoader
) -> ModuleSpec | None:
    """Return where the module `name` of `package` comes from, if it is in `folder`.

    `name` may be the full name; `source` reads `.py` files. A folder without `__init__.py` has a
    spec without a loader. Any thread.
    """
    below = os.path.join(folder, name.rpartition(".")[2])
    kept = sources_of(package)
    for module, locations in ((os.path.join(below, "__init__"), [below]), (below, None)):
        for suffix, loader in ((".py", source), (".pyc", _KeptBytecode)):
            if (file := module + suffix) in kept:
                return spec_from_file_location(
                    name, file, loader=loader(name, file), submodule_search_locations=locations
                )
    spec = _on_disk(folder, name, source)
    if spec is None and is_kept_below(package, below):
        # A folder without `__init__.py`, which is gone from the disk.
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [below]
    return spec


class _KeptBytecode(SourcelessFileLoader):
    """Reads a `.pyc` file without source, which was read from a `.zip` file."""

    def get_data(self, path: str) -> bytes:
        """Return what was read of the file. Any thread."""
        return sources_of(package_of(self.name))[path]


def _on_disk(folder: str, name: str, source: type[SourceFileLoader]) -> ModuleSpec | None:
    """Return where the module `name` comes from, if it lies in `folder`. Any thread."""
    # A new one each time: a finder that is kept takes its time to see a new file.
    finder = FileFinder(
        folder,
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (source, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )
    return finder.find_spec(name)
