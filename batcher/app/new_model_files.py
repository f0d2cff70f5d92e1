"""The files that a model of one file needs beside it, which `batcher init` copies with it.

    net.onnx    the files that hold weights, by the names that stand in the graph
    model.py    the modules and packages beside it that it imports, and those that these import

Files that code opens by a name of its own cannot be known: `batcher init` says so.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from batcher.config.onnx_file import read_onnx
from batcher.errors import ConfigError


def files_of(file: Path) -> dict[str, Path]:
    """Return `file` and what it needs, by the path from its folder on. Raises ConfigError."""
    if file.suffix == ".onnx":
        needed = _weights(file)
    elif file.suffix == ".py":
        needed = _modules(file)
    else:
        needed = set()
    return {str(path.relative_to(file.parent)): path for path in sorted({file, *needed})}


def _weights(graph: Path) -> set[Path]:
    """Return the files of weights that `graph` names. Raises ConfigError: one is not there."""
    folder, found = graph.parent, set()
    for location in {tensor.location for tensor in read_onnx(graph, nodes=True).external}:
        path = Path(folder, location)
        if not path.is_file() or ".." in Path(location).parts or Path(location).is_absolute():
            raise ConfigError(
                f"{graph.name}: expected the weights that the graph names, {location!r}, in the "
                "folder of the graph; there is no such file: move it there"
            )
        found.add(path)
    return found


def _modules(file: Path) -> set[Path]:
    """Return the files beside the Python `file` that it imports, and that these import."""
    folder, found, waiting = file.parent, {file}, [file]
    while waiting:
        module = waiting.pop()
        for name in _imported(module):
            new = set(_beside(folder, name)) - found
            found |= new
            waiting += [path for path in new if path.suffix == ".py"]
    return found


def _imported(module: Path) -> Iterator[str]:
    """Yield the first part of each name that `module` imports."""
    try:
        tree = ast.parse(module.read_bytes())
    except (SyntaxError, ValueError):  # it is a file of a package that nobody imports
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):  # from . import name
            yield from (alias.name for alias in node.names)


def _beside(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files in `folder` that importing `name` reads: a module, or a whole package."""
    if name in sys.stdlib_module_names:
        return
    package = folder / name
    if (package / "__init__.py").is_file() or (package.is_dir() and not _is_installed(name)):
        files = (path for path in package.rglob("*") if path.is_file())
        yield from (path for path in files if "__pycache__" not in path.parts)
    elif (folder / f"{name}.py").is_file():
        yield folder / f"{name}.py"


def _is_installed(name: str) -> bool:
    """Return whether a library has this `name`: it comes before a folder without `__init__.py`."""
    found = PathFinder.find_spec(name, [path for path in sys.path if path])
    return found is not None and found.origin is not None
