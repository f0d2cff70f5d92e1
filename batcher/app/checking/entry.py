"""Whether the class that `model.yaml` names is there, as far as that shows without running code.

    class: net:Net     net.py, or net/__init__.py, beside model.yaml    its own names are looked at
                       an extension there, or an installed package      only that it is there
                       neither, or a module of Python itself            refused

Names of a module may come into being while the module runs (`import *`, `globals()`). Where the
file has such code, every name is taken to be there.
"""

from __future__ import annotations

import ast
import symtable
import sys
from difflib import get_close_matches
from importlib.util import decode_source, find_spec
from pathlib import Path

from batcher.config.model_file import ModelDefinition
from batcher.config.reading import read_yaml
from batcher.errors import ConfigError
from batcher.models.version_code.importing import is_in_folder

_MAKERS = {"globals", "locals", "vars", "exec", "eval", "setattr", "__getattr__", "modules"}
"""Names in code that may make other names of the module."""

_MOST_NAMES = 8
"""Names of a file that an error shows: more do not fit into a line."""


def check_entry(definition: ModelDefinition) -> ModelDefinition:
    """Return `definition` after a look for its class.

    A model that is one file has been looked at by whoever described the file.

    Raises:
        ConfigError: there is no module of that name, the module is no Python, or it has no such
            name.
    """
    if definition.format != "python" or definition.is_single:
        return definition
    module, _, name = definition.entry.partition(":")
    file = _file_of(definition.folder, module)
    if file is not None:
        wrong = _wrong_name(file, name)
    # An extension has no text to look at, and what is imported first may add folders.
    elif is_in_folder(definition, module) or _is_installed(module) or definition.imports:
        wrong = ""
    else:
        wrong = _wrong_module(definition.folder, module, name)
    if wrong:
        place = read_yaml(definition.folder / "model.yaml").origin(("class",))
        raise ConfigError(f"{place}: class: {wrong}")
    return definition


def _file_of(folder: Path, module: str) -> Path | None:
    """Return the file of `module` that the load would take from `folder`; None without one."""
    below = folder.joinpath(*module.split("."))
    files = (below / "__init__.py", below.with_name(f"{below.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _is_installed(module: str) -> bool:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:  # which has no models
        return False
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError):  # a module that is there, and does not say where it is from
        return True


def _wrong_module(folder: Path, module: str, name: str) -> str:
    there = sorted(path.stem for path in folder.glob("*.py"))
    close = get_close_matches(module, there, n=1, cutoff=0.5) or there[:1]
    advice = f": write `class: {close[0]}:{name}`, which is there" if close else ""
    return (
        f"expected a file {module.replace('.', '/')}.py beside it, or an installed module; there "
        f"is none{advice}"
    )


def _wrong_name(file: Path, name: str) -> str:
    """Return what is wrong with `name` as a name of the module in `file`; empty if nothing is."""
    try:
        text = decode_source(file.read_bytes())
        tree, table = ast.parse(text), symtable.symtable(text, file.name, "exec")
    except (SyntaxError, ValueError) as err:
        return f"expected Python in {file.name}; got none: {err}"
    except (OSError, RecursionError, MemoryError):
        return ""  # the load may still read the file, and says more if it cannot
    symbols = table.get_symbols()
    known = [each.get_name() for each in symbols if each.is_assigned() or each.is_imported()]
    if name in known or _may_make_names(tree):
        return ""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    has = f"; it has {', '.join(known[:_MOST_NAMES])}" if known else ""
    advice = f"; did you mean {close[0]}?" if close else has
    return f"expected a class or a function {name} in {file.name}; there is none{advice}"


def _may_make_names(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=[ast.alias(name="*")]) | ast.Global():
                return True
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                if name in _MAKERS:
                    return True
    return False
