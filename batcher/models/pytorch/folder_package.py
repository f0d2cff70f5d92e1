"""The Python modules of a version folder, imported as a package that one loaded model owns.

Two models, or two versions of a model, may hold files of the same name, say `network.py`; and a
file may be called `json.py`. Imported under their plain names, such modules would take each
other's place in `sys.modules`, which belongs to the whole process. So each load of a model makes a
package of its own:

    models/digits/2/network.py  ─►  sys.modules["_batcher_model_<hex>_2_17.network"]

`<hex>` is the model's name in hexadecimal (a dot in a name would mean a package), 2 is the version,
17 counts loads. The path of the package is the version folder, so modules import each other
relatively: `from .network import Net`. `sys.path` is left alone, and the names of other modules are
never hidden.

A loaded model owns its names: the package, and every name below the package.

    event                                       the model's names
    the model is loaded                         are made
    the model serves                            stay: a model may import late, in `predict`, and
                                                Python then looks the package up by its name
    a second definition of the version loads    stay: the old model serves until the new is ready
    a third definition of the version loads     are removed from `sys.modules`

A definition is what was read from one `model.yaml` at one time. All instances of a model come from
one definition; each instance has a package of its own, and the names of all instances are removed
together. To remove names does not unload a model: its objects live as long as something refers to
the objects. To unload a model does not remove names: the names of a version's last two definitions
stay.
"""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import count
from types import ModuleType

from batcher.config.model_file import ModelDefinition

KEPT_DEFINITIONS = 2
"""Definitions of a version whose packages stay: one serves, while the other replaces it."""

_load_numbers = count()
_packages: dict[str, dict[int, tuple[ModelDefinition, list[str]]]] = {}
"""For each version the packages of its last definitions, by the identity of the definition.

The definition is kept beside its packages: as long as a definition lives, no other definition can
have the same identity.
"""


def import_from_folder(definition: ModelDefinition, name: str) -> ModuleType:
    """Import the module `name` from the version folder or, if it is not there, an installed one.

    Raises:
        ImportError: there is no such module.
        BaseException: whatever the module raises.

    Any thread.
    """
    file = definition.folder.joinpath(*name.split("."))
    if not (file.with_suffix(".py").is_file() or file.joinpath("__init__.py").is_file()):
        return import_module(name)
    package = _new_package(definition)
    sys.modules[package.__name__] = package
    return import_module(f"{package.__name__}.{name}")


def _new_package(definition: ModelDefinition) -> ModuleType:
    """Return an empty package over the version folder, and forget the oldest ones. Any thread."""
    version = f"{definition.spec.name.encode().hex()}_{definition.spec.version}"
    package = ModuleType(f"_batcher_model_{version}_{next(_load_numbers)}")
    package.__path__ = [str(definition.folder)]
    definitions = _packages.setdefault(version, {})
    definitions.setdefault(id(definition), (definition, []))[1].append(package.__name__)
    for key in list(definitions)[:-KEPT_DEFINITIONS]:
        # The default: instances are loaded at once, and another thread may have been faster.
        _forget(definitions.pop(key, (definition, []))[1])
    return package


def _forget(packages: list[str]) -> None:
    """Remove the names of `packages`, and all below them, from `sys.modules`. Any thread."""
    for package in packages:
        for name in list(sys.modules):
            if f"{name}.".startswith(f"{package}."):
                sys.modules.pop(name, None)
