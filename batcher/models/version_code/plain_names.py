"""Plain names of a model's modules for pickles and `import_module`, while the model loads.

A pickle names the module of each class, and Python looks the name up in `sys.modules`:
`features.Extractor` is found only if `features` stands there. So for the thread that loads a model
the plain names of the files beside the model are found too, and stand for the modules of the
version's package. At the end of the load `forget_plain_names` removes them again: the next model
may have other files of these names. A model in a child process keeps its plain names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from batcher.models.version_code import own_path
from batcher.models.version_code.homes import home_of

_package: ContextVar[str] = ContextVar("package", default="")
"""The package whose modules have plain names, for this thread."""

_given: dict[str, ModuleType] = {}
"""Modules that stand in `sys.modules` under their plain names."""


def use_plain_names(package: str) -> None:
    """Have plain names mean the modules of `package` too, and of no other version.

    The thread that loads.
    """
    if package != _package.get():
        forget_plain_names()
    _package.set(package)
    if not any(isinstance(finder, _PlainFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PlainFinder())


def forget_plain_names() -> None:
    """Have plain names mean what they did before a load. The thread that loads."""
    own_path.end(_package.get())
    _package.set("")
    while _given:
        name, module = _given.popitem()
        if sys.modules.get(name) is module:
            del sys.modules[name]


class _PlainFinder(MetaPathFinder):
    """Finds modules of the version that loads on this thread by their plain names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for `fullname` if the version has such a module. Any thread."""
        package, first = _package.get(), fullname.partition(".")[0]
        if not package or (first in sys.modules and first not in _given):
            return None
        home = home_of(package, first)
        return ModuleSpec(fullname, _SameModule(f"{home}.{fullname}")) if home else None


class _SameModule(Loader):
    """Gives a plain name the module that has another name already."""

    def __init__(self, fullname: str) -> None:
        """Stand for the module `fullname`. Any thread."""
        self._fullname = fullname

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, imported now if need be. Any thread."""
        module = _given[spec.name] = import_module(self._fullname)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module, which has run, with the spec that it had. Any thread."""
        module.__spec__ = self._spec
