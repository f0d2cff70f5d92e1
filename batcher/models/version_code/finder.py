"""Finds and reads the modules of packages over the folders of models.

`.py` files are taken from what was read when the definition was loaded (`sources.py`). A process
that was started by a model has read nothing, and takes them from the disk, like all other modules:
extensions, and bytecode that has no source.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.readers import FileReader
from types import CodeType, ModuleType
from typing import Any

from batcher.models.version_code.homes import home_of, is_beside
from batcher.models.version_code.local_imports import with_local_imports
from batcher.models.version_code.names import PREFIX, folder_of, package_of
from batcher.models.version_code.search import find_in
from batcher.models.version_code.sources import is_kept_below, may_change_path, sources_of
from batcher.models.version_code.zipped import keep_zipped, read_zipped


class VersionFinder(MetaPathFinder):
    """Finds packages over the folders of models, and the modules in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module `fullname` comes from, None if it is no model's.

        Any thread.
        """
        package = package_of(fullname)
        if not package:
            return None
        if fullname == package:
            folder = folder_of(package)
            if not is_kept_below(package, folder):
                keep_zipped(package, folder)  # for a process that the model has started
            return _of_folder(fullname, folder)
        for each in path or ():
            if spec := find_in(package, each, fullname, ModelSource):
                locations = spec.submodule_search_locations
                return spec if spec.loader or not locations else _of_folder(fullname, locations[0])
        return None


def _of_folder(fullname: str, folder: str) -> ModuleSpec:
    """Return the spec of a package over a folder without `__init__.py`. Any thread."""
    spec = ModuleSpec(fullname, FolderLoader(folder), is_package=True)
    spec.submodule_search_locations = [folder]
    return spec


class FolderLoader(Loader):
    """Makes an empty package, whose files `importlib.resources` finds.

    Python's own loader for such folders knows its own paths alone.
    """

    def __init__(self, folder: str) -> None:
        """Make a package over `folder`. Any thread."""
        self._folder = folder

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make the module. Any thread."""

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing. Any thread."""

    def get_resource_reader(self, name: str) -> FileReader:
        """Return what finds the files of the folder. Any thread."""
        # Of a loader the reader takes the path of the file that the package has, or would have.
        return FileReader(SourceFileLoader(name, os.path.join(self._folder, "__init__.py")))


class ModelSource(SourceFileLoader):
    """Reads one `.py` file of a model."""

    def get_data(self, path: str) -> bytes:
        """Return the text of the file, or data beside it. Any thread."""
        kept = sources_of(package_of(self.name)).get(path)
        if kept is not None:
            return kept
        try:
            return super().get_data(path)
        except NotADirectoryError:
            return read_zipped(path)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text of the file, whatever bytecode there is. Any thread."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(  # type: ignore[override]  # typeshed has a static method of a base class
        self, data: Any, path: Any, **options: Any
    ) -> CodeType:
        """Compile `data`; plain imports mean the files beside the model. Any thread."""
        package = package_of(self.name)

        def home(name: str) -> str:
            return package if is_beside(package, name) and not self._is_own(package, name) else ""

        tree = with_local_imports(ast.parse(data, path), home)
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the file; its imports find the folders that the model puts into `sys.path`.

        Any thread.
        """
        text = self.get_data(self.get_filename(self.name))
        if may_change_path(package_of(self.name), text):
            # Only a name's first use tells which folder it is in: the path changes meanwhile.
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import()}
        super().exec_module(module)

    def _is_own(self, home: str, name: str) -> bool:
        """Return whether `name` in the package `home` is this file itself, and no package.

        A file `tokenizers.py` that imports `tokenizers` means the library. Any thread.
        """
        return f"{home}.{name}" == self.name and not self.is_package(self.name)

    def _import(self) -> Callable[..., Any]:
        """Return what the statement `import` calls in this file. Any thread."""
        package = package_of(self.name)

        def own_import(
            name: str, space: Any = None, names: Any = None, wanted: Any = (), level: int = 0
        ) -> Any:
            first = name.partition(".")[0]
            # With a list C code asks, such as pickle's, and looks for the plain name afterwards.
            is_plain = not level and not name.startswith(PREFIX) and not isinstance(wanted, list)
            home = home_of(package, first) if is_plain else ""
            if not home or self._is_own(home, first):
                return builtins.__import__(name, space, names, wanted, level)
            if wanted:
                return builtins.__import__(f"{home}.{name}", space, names, wanted)
            import_module(f"{home}.{name}")
            return sys.modules[f"{home}.{first}"]

        return own_import
