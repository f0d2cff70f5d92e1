"""What the code of a hook writes into that outlives the call, found by reading it.

A hook may write into the inputs that it is given, and into what it makes. All else is kept: the
model, its classes and modules, closures, and what was bound with `functools.partial`.

    self.rows = inputs["x"]                        written: self.rows
    setattr(self, "rows", …), type(self).rows = …  the same
    buffer = self.buffer; buffer[:2] = 0           written: self.buffer
    np.multiply(x, 2, out=self.scratch)            written: self.scratch
    ids = np.zeros(4); ids[0] = 1                  nothing: `ids` is made here
    if self.words is None: self.words = load()     written once, as of what is made late
    self.calls += 1; self.log.append(x)            added to: nothing, unless something reads it

Functions and methods in files of the same folder, which the hook calls, are read too, and so are
properties, decorators and methods of base classes. Code of libraries is not: what an object of
theirs writes into itself stays unknown.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple

from batcher.models.hook_code import (
    Tree,
    after_class,
    alternatives,
    attribute,
    folder_of,
    is_call_of,
    is_plain,
    is_within,
    kept_defaults,
    layers_of,
    leaves,
    method_called,
    parameters_of,
    tree_of,
)
from batcher.models.hook_names import Hook, Missing, Name, Scope, names_of_hook, short

_ADDING: Final = ("add", "append", "appendleft", "extendleft", "put", "put_nowait")
"""Methods that add to their object, and return nothing of it."""

_WRITING: Final = (
    *_ADDING,
    *("clear", "discard", "extend", "fill", "insert", "pop", "popitem", "popleft", "remove"),
    *("reverse", "setdefault", "setfield", "sort", "update"),
)
"""Methods that write into their object."""

_INTO_FIRST: Final = ("copyto", "place", "put", "put_along_axis", "putmask", "fill_diagonal")
"""Functions of modules that write into their first argument."""

_LOOKUP_ERRORS: Final = ("AttributeError", "KeyError", "LookupError", "NameError")
"""What Python raises where something is missing."""

_MOST_READ: Final = 200
"""Functions that are read of one hook: a load never waits for large code."""


class Found(NamedTuple):
    """What a hook does with what is kept; names as in the code, such as `self.rows`.

    A method's own object is `self`, whatever the code calls it.

    Attributes:
        written: names that it writes into.
        added: names that it only adds to, as to a counter.
        once: names that it writes into where nothing is there yet.
        made: whole paths of the attributes among those.
        read: names that it reads.
    """

    written: set[str]
    added: set[str]
    once: set[str]
    made: set[str]
    read: set[str]

    @property
    def kept(self) -> set[str]:
        """Names that change what a later call does."""
        return self.written | (self.added & self.read)

    def handed_to(self, later: Found) -> set[str]:
        """Return the names that this writes, and that the `later` code reads."""
        # What the later code takes away is written anew by each call.
        names = self.written | self.added | (self.once & later.written)
        return {name for name in names if any(_are_one(name, other) for other in later.read)}

    def add(self, other: Found) -> None:
        """Add what `other` has found."""
        for own, more in zip(self, other, strict=True):
            own.update(more)


def nothing_found() -> Found:
    """Return what is known before code is read. Any thread."""
    return Found(set(), set(), set(), set(), set())


def _are_one(name: str, other: str) -> bool:
    """Return whether `other`, which is read, is `name` or a part of it.

    Names of two modules may stand for one object: `state.sizes` and an imported `sizes`.
    """
    if other == name or other.startswith(f"{name}."):
        return True
    of_self = any(each == "self" or each.startswith("self.") for each in (name, other))
    return not of_self and name.rpartition(".")[2] == other.rpartition(".")[2]


def writes_of(hook: Any) -> Found:
    """Return what `hook` writes into; nothing where its source cannot be read. Any thread."""
    found = nothing_found()
    bound: set[str] = set()
    count = 0
    while isinstance(hook, functools.partial):
        bound |= set(hook.keywords)
        count += len(hook.args)
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    if not isinstance(hook, MethodType | FunctionType) and not inspect.isbuiltin(hook):
        owner, hook = hook, inspect.getattr_static(type(hook), "__call__", None)
    function = getattr(hook, "__func__", hook)
    if not isinstance(function, FunctionType):
        return found
    for layer in layers_of(function):
        names = parameters_of(layer.__code__)[owner is not None :]
        kept = bound | set(names[:count]) | kept_defaults(layer)
        start = Hook(layer.__module__, folder_of(layer), owner, set())
        _read(layer, start, found, names_of_hook(layer, owner, kept), frozenset())
    return found


def _read(
    function: FunctionType,
    hook: Hook,
    found: Found,
    names: Mapping[str, Name],
    missing: Missing,
) -> None:
    """Read `function`, whose parameters are `names`, into `found`, unless that was done."""
    key = function, tuple((name, each.path) for name, each in names.items()), missing
    if key not in hook.seen and len(hook.seen) < _MOST_READ:
        hook.seen.add(key)
        tree = tree_of(function)
        if tree is not None:
            _Reader(function, tree, hook, found, names).look(missing)


class _Reader:
    """Reads one function."""

    def __init__(
        self,
        function: FunctionType,
        tree: Tree,
        hook: Hook,
        found: Found,
        names: Mapping[str, Name],
    ) -> None:
        """Read `function`, parsed as `tree`, which `hook` calls, into `found`."""
        self._function, self._tree, self._hook, self._found = function, tree, hook, found
        self._scope = scope = Scope(function, tree, hook, names)
        self._path, self._value, self._missing = scope.path, scope.value, scope.missing

    def look(self, missing: Missing) -> None:
        """Note what the function writes and reads."""
        body = self._tree.body
        self._block(body if isinstance(body, list) else [ast.Expr(body)], missing)

    # What a statement does

    def _block(self, body: list[ast.stmt], missing: Missing) -> None:
        """Note what the statements of `body` do, where what is `missing` is not there."""
        for place, statement in enumerate(body):
            self._visit(statement, missing)
            if gone := self._gone_after(statement):
                self._once(body[place + 1 :], missing, gone)
                return

    def _gone_after(self, statement: ast.stmt) -> Missing:
        """Return what is missing in all that follows `statement`."""
        if isinstance(statement, ast.If) and leaves(statement.body) and not statement.orelse:
            return self._missing(statement.test, False)
        if isinstance(statement, ast.Try) and leaves(statement.body):
            return self._tried(statement)
        return frozenset()

    def _tried(self, statement: ast.Try) -> Missing:
        """Return what may be missing where the body of `statement` has raised."""
        caught = " ".join(ast.unparse(each.type) for each in statement.handlers if each.type)
        if not any(name in caught for name in _LOOKUP_ERRORS):
            return frozenset()
        nodes = [node for each in statement.body for node in ast.walk(each)]
        kinds = (ast.Attribute, ast.Subscript, ast.Name)
        return frozenset({self._path(each) for each in nodes if type(each) in kinds} - {"", "self"})

    def _once(self, body: list[ast.stmt], missing: Missing, gone: Missing) -> None:
        """Note what `body` does, which runs where what is `gone` is not there.

        If it makes what is gone, it runs once, and so writes all that it writes once.
        """
        outer, self._found = self._found, nothing_found()
        self._block(body, missing | gone)
        inner, self._found = self._found, outer
        if inner.made & gone:
            inner.once.update(inner.written)
            inner.written.clear()
        outer.add(inner)

    def _visit(self, node: ast.AST, missing: Missing) -> None:
        """Note what a part of the function does."""
        if isinstance(node, ast.If):
            self._visit(node.test, missing)
            self._once(node.body, missing, self._missing(node.test, True))
            self._once(node.orelse, missing, self._missing(node.test, False))
        elif isinstance(node, ast.Try):
            for part in (node.body, node.orelse, node.finalbody):
                self._block(part, missing)
            for handler in node.handlers:
                self._once(handler.body, missing, self._tried(node))
        elif isinstance(node, ast.Assign | ast.AugAssign):
            self._assign(node, missing)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._call(node.value, missing, is_read=False)
        elif isinstance(node, ast.Call):
            self._call(node, missing)
        elif isinstance(node, ast.Attribute | ast.Subscript | ast.Name):
            self._expression(node, missing)
        else:
            self._parts(node, missing)

    def _assign(self, node: ast.Assign | ast.AugAssign, missing: Missing) -> None:
        """Note what is assigned; a counter, `+= 1`, is only added to."""
        if isinstance(node, ast.AugAssign):
            self._target(node.target, missing, isinstance(node.value, ast.Constant))
        else:
            there = missing.union(map(self._path, alternatives(node.value)))
            for target in node.targets:
                self._target(target, there)
        self._visit(node.value, missing)

    def _parts(self, node: ast.AST, missing: Missing) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._block(value, missing)
            else:
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, ast.AST):
                        self._visit(each, missing)

    def _expression(self, node: ast.Attribute | ast.Subscript | ast.Name, missing: Missing) -> None:
        """Note that a name, an attribute or an element is read, or assigned."""
        if not isinstance(node.ctx, ast.Load):
            self._target(node, missing)
            return
        if not isinstance(node, ast.Subscript):
            self._note(self._found.read, self._path(node))
        if isinstance(node, ast.Attribute):
            self._property(node, missing)
        self._parts(node, missing)

    def _target(self, node: ast.expr, missing: Missing, is_counter: bool = False) -> None:
        """Note that `node` is assigned."""
        if isinstance(node, ast.Tuple | ast.List | ast.Starred):
            for each in node.elts if not isinstance(node, ast.Starred) else [node.value]:
                self._target(each, missing)
        elif isinstance(node, ast.Attribute | ast.Subscript) or (
            isinstance(node, ast.Name) and node.id in self._scope.shared
        ):
            if is_counter:
                self._note(self._found.added, self._path(node))
            else:
                self._write(self._path(node), missing, isinstance(node, ast.Subscript))
            self._around(node, missing)

    def _around(self, node: ast.expr, missing: Missing) -> None:
        """Note what the code reads to find `node`, which it writes into."""
        if isinstance(node, ast.Attribute):
            self._property(node, missing)
        if isinstance(node, ast.Subscript):
            self._visit(node.slice, missing)
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            self._around(node.value, missing)
        elif not isinstance(node, ast.Name):
            self._visit(node, missing)

    def _write(self, path: str, missing: Missing, is_item: bool = True) -> None:
        is_once = path in missing
        self._note(self._found.once if is_once else self._found.written, path)
        if is_once and not is_item:
            self._found.made.add(path)

    @staticmethod
    def _note(names: set[str], path: str) -> None:
        if path:
            names.add(short(path))

    def _call(self, node: ast.Call, missing: Missing, is_read: bool = True) -> None:
        """Note what a call writes into; `is_read` tells whether its result is."""
        for keyword in node.keywords:
            if keyword.arg == "out":
                self._write(self._path(keyword.value), missing)
        if is_call_of(node, "setattr", "delattr"):
            self._write(self._path(node), missing, is_item=False)
        elif is_call_of(node, "getattr"):
            self._note(self._found.read, self._path(node))
        into = self._into(node.func)
        if into is None:
            if isinstance(node.func, ast.Attribute) and node.func.attr in _INTO_FIRST and node.args:
                self._write(self._path(node.args[0]), missing)
            self._visit(node.func, missing)
        else:
            if into.attr in _ADDING:
                self._note(self._found.added, self._path(into.value))
            else:
                self._write(self._path(into.value), missing)
            (self._visit if is_read else self._around)(into.value, missing)
        for each in (*node.args, *node.keywords):
            self._visit(each, missing)
        self._follow(node, missing)

    def _into(self, function: ast.expr) -> ast.Attribute | None:
        """Return `function` if it is a method that writes into its object; else None."""
        if not isinstance(function, ast.Attribute) or self._scope.is_module(function.value):
            return None
        name = function.attr
        sets = name == "set" and isinstance(self._value(function.value), ContextVar)
        # Those of tensors say so by their name.
        of_tensor = name.endswith("_") and not name.endswith("__")
        return function if sets or of_tensor or name in _WRITING else None

    # What other functions do

    def _property(self, node: ast.Attribute, missing: Missing) -> None:
        """Read the property that `node` is, if it is one."""
        of = self._value(node.value)
        found = attribute(type(of), node.attr) if of is not None else None
        if isinstance(found, property):
            called = found.fget if isinstance(node.ctx, ast.Load) else found.fset
            self._read_called(called, Name(self._path(node.value), of), None, missing)

    def _follow(self, node: ast.Call, missing: Missing) -> None:
        """Read a function of the same folder that is called."""
        function, own = node.func, None
        called: Any = self._value(function)
        if isinstance(function, ast.Attribute):
            own = Name(self._path(function.value), self._value(function.value))
            if is_call_of(function.value, "super"):
                own = self._scope.own
                called = after_class(self._function, own.value, function.attr)
            elif isinstance(called, FunctionType) and is_plain(own.value, function.attr):
                own = None
        if isinstance(called, MethodType):
            own, called = self._scope.owned(called.__self__, function), called.__func__
        elif isinstance(called, staticmethod | classmethod):
            called, own = called.__func__, own if isinstance(called, classmethod) else None
        elif called is not None and not isinstance(called, FunctionType | type):
            called, own = method_called(called), Name(self._path(function), called)
        self._read_called(called, own, node, missing)

    def _read_called(
        self, called: Any, own: Name | None, node: ast.Call | None, missing: Missing
    ) -> None:
        """Read `called`, a method of `own` if there is one, if it is of the same folder."""
        if isinstance(called, FunctionType) and is_within(called, self._hook.folder):
            for layer in layers_of(called):
                names = self._bound(layer, own, node)
                _read(layer, self._hook, self._found, names, missing)

    def _bound(
        self, function: FunctionType, own: Name | None, node: ast.Call | None
    ) -> dict[str, Name]:
        """Return what the parameters of `function` stand for, which `node` calls."""
        args, keywords = (node.args, node.keywords) if node is not None else ([], [])
        if own is None and any(isinstance(each, ast.Starred) for each in args):
            return names_of_hook(
                function, self._hook.owner
            )  # a decorator hands on what it was given
        found = names_of_hook(function, None, kept_defaults(function))
        names = list(found)
        if own is not None and names:
            found[names.pop(0)] = Name(short(own.path), own.value)
        pairs = [*zip(names, args, strict=False)]
        pairs += [(each.arg, each.value) for each in keywords if each.arg in found]
        for name, value in pairs:
            found[name] = Name(short(self._path(value)), self._value(value))
        return found
