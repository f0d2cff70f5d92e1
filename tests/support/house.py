"""What the rules of the house are checked with: who imports what, circles, sizes.

A `House` reads every file of one package once. A check is a function that takes the house, or a
list of files, and returns one sentence for each thing that breaks its rule, so an empty list is
good. Nothing is imported from the package that is checked; its text alone is read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

CACHE = "__pycache__"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class House:
    """The files of the package that lies in the folder `root`, by dotted name.

    Attributes:
        root: folder of the package.
        paths: file of each module; that of a package is its `__init__.py`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = {self._module(path): path for path in sorted(root.rglob("*.py"))}

    @cached_property
    def names(self) -> dict[str, set[str]]:
        """Dotted name of everything that each module imports, wherever the import stands."""
        return {module: set(imported_names(path)) for module, path in self.paths.items()}

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Modules of this package that each module imports; a package stands for its `__init__`.

        The version is left out: it is a constant of the door, and the door imports nobody for it.
        """
        version = f"{self.root.name}.__version__"
        return {
            module: {self._target(name) for name in names if name != version} & set(self.paths)
            for module, names in self.names.items()
        }

    def place(self, module: str) -> str:
        """Return where a module stands, as a path from the root without its ending."""
        return module.partition(".")[2].replace(".", "/")

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")

    def _target(self, name: str) -> str:
        """Return the module that an imported name belongs to: itself, or what it is taken from."""
        return name if name in self.paths else name.rpartition(".")[0]


def imported_names(path: Path) -> Iterator[str]:
    """Yield what a file imports; functions and `TYPE_CHECKING` are no hiding places."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward_imports(house: House, rows: Mapping[str, int], module: str) -> list[str]:
    """Return a module's imports from rows that are not above its own; its own entry is fine."""
    own = _entry(house, module)
    found = []
    for other in sorted(house.graph[module]):
        entry = _entry(house, other)
        if own in ("", entry):
            continue  # the door opens on every room; inside a room there are no rows
        if not entry:
            found.append(f"{module} comes in by the door, which is for users")
        elif rows[entry] >= rows[own]:
            found.append(f"{module} (row {rows[own]}) imports {other} (row {rows[entry]})")
    return found


def imports_between(house: House, room: str, other: str) -> list[str]:
    """Return the imports of one entry of the root in another."""
    return [
        f"{module} imports {target}"
        for module, others in house.graph.items()
        for target in sorted(others)
        if (_entry(house, module), _entry(house, target)) == (room, other)
    ]


def crossing_imports(house: House, folder: str, *shared: str) -> list[str]:
    """Return the imports between subfolders of `folder` that are not imports of a `shared` one."""
    found = []
    for module, others in house.graph.items():
        for other in sorted(others):
            own, target = _subfolder(house, module, folder), _subfolder(house, other, folder)
            if own and target and target not in {own, *shared}:
                found.append(f"{module} imports {other}")
    return found


def circles(house: House) -> list[list[str]]:
    """Return the groups of modules of which each imports every other, at some removes.

    Tarjan's algorithm: `low` is the earliest module on the stack that can be reached. A module
    that reaches none before itself closes a group, which is what lies above it on the stack.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(house.graph[module]):
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            start = stack.index(module)
            group = stack[start:]
            del stack[start:]
            if len(group) > 1 or module in house.graph[module]:
                found.append(sorted(group))

    for module in house.graph:
        if module not in order:
            visit(module)
    return found


def strange_entries(root: Path, allowed: Iterable[str]) -> list[str]:
    """Return what else than `allowed` lies at the root; caches and compiled files do not count."""
    return sorted(
        entry.name
        for entry in root.iterdir()
        if entry.name not in set(allowed) and any(_sources(entry))
    )


def stolen_libraries(house: House, owners: Mapping[str, Iterable[str]], module: str) -> list[str]:
    """Return a module's imports of libraries that belong elsewhere."""
    return [
        f"{module} imports {name}, which belongs to {', '.join(places)}"
        for name in sorted(house.names[module])
        for library, places in owners.items()
        if _is_within(name, library, ".") and not _stands_in(house, module, places)
    ]


def long_files(paths: Iterable[Path], max_lines: int) -> list[str]:
    """Return the files that have more lines than allowed."""
    counts = ((path, len(path.read_text().splitlines())) for path in paths)
    return [f"{path}: {count} lines" for path, count in counts if count > max_lines]


def wide_lines(paths: Iterable[Path], max_columns: int) -> list[str]:
    """Return the lines that have more columns than allowed."""
    return [
        f"{path}:{number}: {len(line)} columns"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > max_columns
    ]


def large_classes(paths: Iterable[Path], max_methods: int) -> list[str]:
    """Return the classes with more methods than allowed; properties and `__init__` count too."""
    found = []
    for path, node in _nodes(paths):
        if isinstance(node, ast.ClassDef):
            count = sum(isinstance(member, Function) for member in node.body)
            if count > max_methods:
                found.append(f"{path}:{node.lineno} {node.name}: {count} methods")
    return found


def long_functions(paths: Iterable[Path], max_lines: int) -> list[str]:
    """Return the functions with more lines than allowed, from `def` on, docstring included."""
    found = []
    for path, node in _nodes(paths):
        if isinstance(node, Function):
            assert node.end_lineno is not None
            count = node.end_lineno - node.lineno + 1
            if count > max_lines:
                found.append(f"{path}:{node.lineno} {node.name}: {count} lines")
    return found


def _nodes(paths: Iterable[Path]) -> Iterator[tuple[Path, ast.AST]]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


def _entry(house: House, module: str) -> str:
    return house.place(module).partition("/")[0]


def _subfolder(house: House, module: str, folder: str) -> str:
    parts = house.place(module).split("/")
    return parts[1] if parts[0] == folder and len(parts) > 1 else ""


def _stands_in(house: House, module: str, places: Iterable[str]) -> bool:
    return any(_is_within(house.place(module), place, "/") for place in places)


def _is_within(name: str, outer: str, separator: str) -> bool:
    return name == outer or name.startswith(outer + separator)


def _sources(entry: Path) -> Iterator[Path]:
    files = entry.rglob("*") if entry.is_dir() else (entry,)
    return (
        path
        for path in files
        if path.is_file() and CACHE not in path.parts and path.suffix != ".so"
    )
