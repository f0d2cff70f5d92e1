"""What the names and expressions in the code of a hook stand for: what is kept, or what is fresh.

What is kept has a path: `self.sizes`, `state.sizes` of a module, `sizes` of the hook's own module
or closure. What the hook was given, or has made, has none.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Final, NamedTuple

from batcher.models.hook_code import (
    Tree,
    attribute,
    constant,
    is_call_of,
    locals_of,
    modules_of,
    outer_value,
    pairs_of,
    parameters_of,
    shared_of,
)

_VIEWS: Final = (
    *("detach", "expand", "flatten", "get", "items", "narrow", "numpy", "permute", "ravel"),
    *("reshape", "setdefault", "squeeze", "swapaxes", "transpose", "unsqueeze", "values", "view"),
)
"""Methods that may return a part of their object."""

_PAIRS: Final = ("enumerate", "iter", "next", "reversed", "zip")
"""Functions that hand on what they are given."""

_ITSELF: Final = ("__class__", "__dict__")
"""Attributes that have the attributes of their object."""

_GONE: Final = (ast.Is, ast.Eq, ast.NotIn)
_THERE: Final = (ast.IsNot, ast.NotEq, ast.In)
"""Comparisons with None or a container that are true where something is missing, or there."""

Missing = frozenset[str]
"""Paths of what is kept, but is not there yet where a part of the code runs."""


class Name(NamedTuple):
    """What a name in a function stands for.

    Attributes:
        path: how what is kept is called; empty for what the hook was given or has made.
        value: the object, as far as it is known.
    """

    path: str
    value: Any


FRESH: Final = Name("", None)

Seen = set[tuple[FunctionType, tuple[tuple[str, str], ...], Missing]]
"""Functions that were read, each with what its parameters stand for: none is read twice."""


class Hook(NamedTuple):
    """The hook that is read.

    Attributes:
        module: the name of its module.
        folder: the folder of its file.
        owner: the object or the class that it belongs to; None if there is none.
        seen: functions that were read.
    """

    module: str
    folder: Path
    owner: Any
    seen: Seen


def names_of_hook(function: FunctionType, owner: Any, kept: Iterable[str] = ()) -> dict[str, Name]:
    """Return what the parameters stand for where the server calls `function` for a request."""
    names = parameters_of(function.__code__)
    found = {name: Name(name, None) if name in kept else FRESH for name in names}
    if owner is not None and names:
        found[names[0]] = Name("self", owner)
    return found


class Scope:
    """What the names in one function stand for.

    Attributes:
        own: what its first parameter stands for.
        shared: the names of others that it assigns.
    """

    def __init__(
        self, function: FunctionType, tree: Tree, hook: Hook, names: Mapping[str, Name]
    ) -> None:
        """Know the names in `function`, parsed as `tree`, whose parameters are `names`."""
        self._function, self._hook = function, hook
        self.own = next(iter(names.values()), FRESH)
        self._names = dict(names)
        self.shared = shared_of(tree, function)
        self._locals = locals_of(tree) - self.shared
        self._modules = modules_of(tree)
        for _ in range(2):  # an alias of an alias
            for node in ast.walk(tree):
                for target, value in pairs_of(node):
                    self._note_alias(target, value)

    def _note_alias(self, target: ast.expr, value: ast.expr) -> None:
        """Note the names in `target` that stand for something kept."""
        path = self.path(value)
        if path and not isinstance(target, ast.Attribute | ast.Subscript):
            known = self.value(value) if isinstance(target, ast.Name) else None
            for each in ast.walk(target):
                if isinstance(each, ast.Name) and each.id not in self.shared:
                    self._names[each.id] = Name(path, known)

    def path(self, node: ast.AST | None) -> str:
        """Return the path of what is kept, and of which `node` is a part; empty if it is none."""
        if isinstance(node, ast.Name):
            return self._path_of_name(node.id)
        if isinstance(node, ast.Attribute):
            own = self.path(node.value)
            return own if not own or node.attr in _ITSELF else f"{own}.{node.attr}"
        if isinstance(node, ast.Subscript):
            own, name = self.path(node.value), constant([node.slice])
            return f"{own}.{name}" if own and name and _is_mapping_of(node.value) else own
        if isinstance(node, ast.Starred):
            return self.path(node.value)
        if isinstance(node, ast.IfExp):
            return self.path(node.body) or self.path(node.orelse)
        if isinstance(node, ast.BoolOp | ast.Tuple | ast.List):
            return self._first(node.values if isinstance(node, ast.BoolOp) else node.elts)
        return self._path_of_call(node) if isinstance(node, ast.Call) else ""

    def _first(self, nodes: Sequence[ast.expr]) -> str:
        return next(filter(None, map(self.path, nodes)), "")

    def _path_of_call(self, node: ast.Call) -> str:
        if isinstance(node.func, ast.Attribute):
            return self.path(node.func.value) if node.func.attr in _VIEWS else ""
        if not node.args:
            return ""
        if is_call_of(node, "type", "vars"):
            return self.path(node.args[0])
        if is_call_of(node, "getattr", "setattr", "hasattr", "delattr"):
            own, name = self.path(node.args[0]), constant(node.args[1:2])
            return f"{own}.{name}" if own and name else own
        return self._first(node.args) if is_call_of(node, *_PAIRS) else ""

    def _path_of_name(self, name: str) -> str:
        if name in self._names:
            return self._names[name].path
        if name in self._locals:
            return ""
        value, owner = outer_value(self._function, name), self._hook.owner
        if isinstance(value, type) and owner is not None:
            return "self" if value in _class_of(owner).__mro__ else name
        if inspect.ismodule(value):
            return value.__name__.rpartition(".")[2]
        module = self._function.__module__
        is_of_hook = module == self._hook.module
        return name if is_of_hook else f"{module.rpartition('.')[2]}.{name}"

    def value(self, node: ast.AST) -> Any:
        """Return what a name or an attribute is, as far as that is known without a call."""
        if isinstance(node, ast.Name):
            if node.id in self._names:
                return self._names[node.id].value
            return None if node.id in self._locals else outer_value(self._function, node.id)
        if isinstance(node, ast.Attribute):
            return attribute(self.value(node.value), node.attr)
        return None

    def missing(self, test: ast.expr, is_true: bool) -> Missing:
        """Return what is missing where `test` is true, or else where it is false."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self.missing(test.operand, not is_true)
        if isinstance(test, ast.NamedExpr):
            return self.missing(test.value, is_true)
        if isinstance(test, ast.BoolOp):
            all_hold = is_true == isinstance(test.op, ast.And)
            parts = [self.missing(each, is_true) for each in test.values] if all_hold else []
            return frozenset().union(*parts)
        path = ""
        if isinstance(test, ast.Compare):
            path = self._compared(test, is_true)
        elif not is_true:
            path = self.path(test)
        return frozenset({path} - {"", "self"})

    def _compared(self, test: ast.Compare, is_true: bool) -> str:
        """Return the path of what is missing where a comparison is true, or else false."""
        (operator, *_), (value, *more) = test.ops, test.comparators
        if more or not isinstance(operator, _GONE if is_true else _THERE):
            return ""
        if isinstance(operator, ast.In | ast.NotIn):
            own, name = self.path(value), constant([test.left])
            return f"{own}.{name}" if own and name and _is_mapping_of(value) else own
        is_none = isinstance(value, ast.Constant) and value.value is None
        return self.path(test.left) if is_none else ""

    def is_module(self, node: ast.AST) -> bool:
        """Return whether `node` is a module, or a part of one that is imported here."""
        root = ast.unparse(node).partition(".")[0]
        return root in self._modules or inspect.ismodule(self.value(node))

    def owned(self, owner: Any, function: ast.expr) -> Name:
        """Return what the `owner` of a method that is kept stands for."""
        return Name("self" if owner is self._hook.owner else self.path(function), owner)


def _class_of(owner: Any) -> type:
    return owner if isinstance(owner, type) else type(owner)


def short(path: str) -> str:
    """Return the name of what is kept, of which `path` is a part."""
    return ".".join(path.split(".")[:2])


def _is_mapping_of(node: ast.AST) -> bool:
    """Return whether `node` is the mapping of the attributes of an object."""
    is_own = isinstance(node, ast.Attribute) and node.attr == "__dict__"
    return is_own or is_call_of(node, "vars")
