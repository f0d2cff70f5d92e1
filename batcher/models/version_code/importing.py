"""The module that `class:` in `model.yaml` names, and how long its names stay."""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import count
from types import ModuleType
from weakref import finalize

from batcher.config.model_file import ModelDefinition
from batcher.models.version_code import own_path
from batcher.models.version_code.homes import forget_homes
from batcher.models.version_code.names import PREFIX, package_name
from batcher.models.version_code.plain_names import remove_plain_names, use_plain_names
from batcher.models.version_code.search import find_in
from batcher.models.version_code.sources import drop_sources, keep_sources

_load_numbers = count()
_packages: dict[int, str] = {}
"""The package of each definition, by the definition's identity."""


def import_from_folder(definition: ModelDefinition, name: str) -> ModuleType:
    """Import the module `name` from the version folder or, if it is not there, an installed one.

    Raises:
        ImportError: there is no such module.
        BaseException: whatever the module raises.

    The thread that loads.
    """
    if not is_in_folder(definition, name):
        return import_module(name)
    package = _packages.get(id(definition)) or _new_package(definition)
    use_plain_names(package)
    return import_module(f"{package}.{name}")


def package_of_definition(definition: object) -> str:
    """Return the package of a definition; empty if nothing was imported for it. Any thread."""
    return _packages.get(id(definition), "")


def is_in_folder(definition: ModelDefinition, name: str) -> bool:
    """Return whether the module `name` lies in the version folder. Any thread.

    It may be a `.py` file, a package, an extension, or bytecode without source.
    """
    *above, _ = name.split(".")
    spec = find_in("", str(definition.folder.joinpath(*above)), name)
    return spec is not None and spec.loader is not None


def _new_package(definition: ModelDefinition) -> str:
    """Return the name of a package for `definition`, whose files are read now. Any thread."""
    package = package_name(str(definition.folder), next(_load_numbers))
    _packages[id(definition)] = package
    finalize(definition, _forget, id(definition), package).atexit = False
    own_path.begin(package)
    keep_sources(package, not definition.is_single)
    return package


def _forget(identity: int, package: str) -> None:
    """Remove the names of a package, and all below it: nobody runs its model. Any thread."""
    del _packages[identity]
    own_path.forget(package)
    for each in (package, *drop_sources(package)):
        forget_homes(each)
        remove_plain_names(each)
        _remove(each)


def _remove(package: str) -> None:
    """Remove the modules of `package` from what Python knows by name. Any thread."""
    below = f"{package}."
    # Thousands of names are looked at while the loop waits: one cheap look for each.
    for name in [each for each in list(sys.modules) if each.startswith(package)]:
        if name == package or name.startswith(below):
            sys.modules.pop(name, None)
    # Importing has made the package an attribute of the package above.
    vars(sys.modules[PREFIX[:-1]]).pop(package[len(PREFIX) :], None)
