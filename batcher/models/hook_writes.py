"""What the code of a hook writes into that outlives the call, found by reading it.

A hook may write into the inputs that it is given, and into what it makes. All else is kept: the
model, its classes and modules, and what was bound with `functools.partial`.

    self.rows = inputs["x"]                        written: self.rows
    buffer = self.buffer; buffer[:2] = 0           written: self.buffer
    np.multiply(x, 2, out=self.scratch)            written: self.scratch
    ids = np.zeros(4); ids[0] = 1                  nothing: `ids` is made here
    if self.words is None: self.words = load()     nothing: written once, as of what is made late
    self.calls += 1                                nothing, unless something reads it: a counter

Functions and methods in files of the same folder, which the hook calls, are read too. Code of
libraries is not: what an object of theirs writes into itself stays unknown.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Collection, Iterator
from pathlib import Path
from textwrap import dedent
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple

_WRITING: Final = (
    *("add", "append", "appendleft", "clear", "discard", "extend", "fill", "insert", "pop"),
    *("popitem", "popleft", "put", "remove", "reverse", "setdefault", "setfield", "sort", "update"),
)
"""Methods that write into their object."""

_INTO_FIRST: Final = ("copyto", "place", "put", "put_along_axis", "putmask", "fill_diagonal")
"""Functions of modules that write into their first argument."""

_VIEWS: Final = (
    *("detach", "expand", "flatten", "get", "narrow", "numpy", "permute", "ravel", "reshape"),
    *("setdefault", "squeeze", "swapaxes", "transpose", "unsqueeze", "view"),
)
"""Methods that may return a part of their object."""

_PAIRS: Final = ("enumerate", "iter", "next", "reversed", "zip")
"""Functions that hand on what they are given."""

Seen = set[tuple[FunctionType, int, frozenset[str]]]
"""Functions that were read, each with its object and with what the hook has made of its parameters:
none is read twice, however often it is called.
"""


class Found(NamedTuple):
    """What a hook does with what is kept; names as in the code, such as `self.rows`.

    A method's own object is `self`, whatever the code calls it.

    Attributes:
        written: names that it writes into.
        added: names that it only adds to, as to a counter.
        read: names that it reads.
    """

    written: set[str]
    added: set[str]
    read: set[str]

    @property
    def kept(self) -> set[str]:
        """Names that change what a later call does."""
        return self.written | (self.added & self.read)


def writes_of(hook: Any) -> Found:
    """Return what `hook` writes into; nothing where its source cannot be read. Any thread."""
    found = Found(set(), set(), set())
    bound: set[str] = set()
    while isinstance(hook, functools.partial):
        bound |= set(hook.keywords)
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    if not isinstance(hook, MethodType | FunctionType) and not inspect.isbuiltin(hook):
        owner, hook = hook, inspect.getattr_static(type(hook), "__call__", None)
    function = getattr(hook, "__func__", hook)
    if isinstance(function, FunctionType):
        function = inspect.unwrap(function)
        _Reader(function, owner, found, None, set(), bound).look()
    return found


class _Reader:
    """Reads one function."""

    def __init__(
        self,
        function: FunctionType,
        owner: Any,
        found: Found,
        fresh: frozenset[str] | None,
        seen: Seen,
        bound: Collection[str] = (),
    ) -> None:
        """Read `function`, a method of `owner`, into `found`.

        `fresh` are its parameters that the hook has made; None stands for the last one alone, the
        inputs or outputs of a request. Those in `bound` are none. `seen` were read before.
        """
        self._function = function
        self._owner = owner
        self._found = found
        self._seen = seen
        self._tree = _tree_of(function)
        names = [arg.arg for arg in self._tree.args.args] if self._tree is not None else []
        self._self = names[0] if names and owner is not None else ""
        last = {name for name in names if name not in bound and name != self._self}
        self._fresh = frozenset(names[-1:]) & last if fresh is None else fresh
        self._aliases: dict[str, str] = {}

    def look(self) -> None:
        """Note what the function writes and reads."""
        if self._tree is None:
            return
        self._locals = _locals_of(self._tree) | self._fresh
        self._shared = _declared_of(self._tree)
        self._modules = _modules_of(self._tree)
        for _ in range(2):  # an alias of an alias
            for node in ast.walk(self._tree):
                self._note_alias(node)
        for node, tests in _with_tests(self._tree):
            self._note(node, tests)

    def _note_alias(self, node: ast.AST) -> None:
        """Note names that stand for something kept."""
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.For | ast.comprehension):
            pairs = [(node.target, node.iter)]
        else:
            return
        for target, value in pairs:
            if (kept := self._kept(value)) and not isinstance(
                target, ast.Attribute | ast.Subscript
            ):
                for each in ast.walk(target):
                    if isinstance(each, ast.Name):
                        self._aliases[each.id] = kept

    def _kept(self, node: ast.AST | None) -> str:
        """Return the name of what is kept, and of which `node` is a part; empty if it is none."""
        if isinstance(node, ast.Name):
            return self._kept_name(node.id)
        if isinstance(node, ast.Attribute):
            own = self._kept(node.value)
            return own if own.count(".") or not own else f"{own}.{node.attr}"
        if isinstance(node, ast.Subscript | ast.Starred):
            return self._kept(node.value)
        if isinstance(node, ast.IfExp):
            return self._kept(node.body) or self._kept(node.orelse)
        if isinstance(node, ast.BoolOp | ast.Tuple | ast.List):
            parts = node.values if isinstance(node, ast.BoolOp) else node.elts
            return next(filter(None, map(self._kept, parts)), "")
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS:
                return self._kept(node.func.value)
            if isinstance(node.func, ast.Name) and node.func.id in _PAIRS:
                return next(filter(None, map(self._kept, node.args)), "")
        return ""

    def _kept_name(self, name: str) -> str:
        if name in self._aliases:
            return self._aliases[name]
        if name == self._self:
            return "self"
        return "" if name in self._locals and name not in self._shared else name

    def _note(self, node: ast.AST, tests: str) -> None:
        """Note what one part of the function does; `tests` are the conditions that it is under."""
        if isinstance(node, ast.Assign | ast.Delete):
            for target in node.targets:
                self._note_target(target, tests)
        elif isinstance(node, ast.AnnAssign):
            self._note_target(node.target, tests)
        elif isinstance(node, ast.AugAssign):
            if isinstance(node.target, ast.Attribute) and isinstance(node.value, ast.Constant):
                self._add(self._found.added, node.target)
            else:
                self._note_target(node.target, tests)
        elif isinstance(node, ast.Call):
            self._note_call(node, tests)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            self._add(self._found.read, node)

    def _note_target(self, target: ast.AST, tests: str) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for each in target.elts:
                self._note_target(each, tests)
        elif isinstance(target, ast.Attribute | ast.Subscript):
            if not _is_once(target, tests):
                self._add(self._found.written, target)
        elif isinstance(target, ast.Name) and target.id in self._shared - set(tests.split()):
            self._found.written.add(target.id)

    def _add(self, names: set[str], node: ast.AST) -> None:
        if name := self._kept(node):
            names.add(name)

    def _note_call(self, node: ast.Call, tests: str) -> None:
        for keyword in node.keywords:
            if keyword.arg == "out":
                self._add(self._found.written, keyword.value)
        function = node.func
        if isinstance(function, ast.Attribute):
            name, of = function.attr, function.value
            if self._is_module(of):
                if name in _INTO_FIRST and node.args:
                    self._add(self._found.written, node.args[0])
            elif _is_writing(name) and f"not in {ast.unparse(of)}" not in tests:
                self._add(self._found.written, of)
        elif isinstance(function, ast.Name) and function.id == "setattr" and node.args:
            self._add(self._found.written, node.args[0])
        self._follow(node)

    def _is_module(self, node: ast.AST) -> bool:
        root = ast.unparse(node).partition(".")[0]
        return root in self._modules or inspect.ismodule(self._value(node))

    def _follow(self, node: ast.Call) -> None:
        """Read a function of the same folder that is called."""
        called, owner = self._value(node.func), None
        if isinstance(node.func, ast.Attribute):
            owner = self._value(node.func.value)
            called = inspect.getattr_static(type(owner), node.func.attr, called)
        elif called is not None and not isinstance(called, FunctionType | type):
            owner, called = called, inspect.getattr_static(type(called), "__call__", None)
        if isinstance(owner, type) or inspect.ismodule(owner):
            owner = None
        if isinstance(called, FunctionType) and _is_beside(called, self._function):
            names = list(inspect.signature(called).parameters)[owner is not None :]
            pairs = [*zip(names, node.args, strict=False)]
            pairs += [(each.arg, each.value) for each in node.keywords if each.arg]
            fresh = frozenset([name for name, value in pairs if not self._kept(value)])
            key = called, id(owner), fresh
            if key not in self._seen:
                self._seen.add(key)
                _Reader(called, owner, self._found, fresh, self._seen).look()

    def _value(self, node: ast.AST) -> Any:
        """Return what a name or an attribute is, as far as that is known without a call."""
        if isinstance(node, ast.Name):
            if node.id == self._self:
                return self._owner
            return None if node.id in self._locals else self._function.__globals__.get(node.id)
        if isinstance(node, ast.Attribute):
            of = self._value(node.value)
            return None if of is None else getattr(of, "__dict__", {}).get(node.attr)
        return None


def _tree_of(function: FunctionType) -> ast.FunctionDef | None:
    """Return the parsed source of `function`; None where there is none."""
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _locals_of(tree: ast.FunctionDef) -> set[str]:
    """Return the names that a function assigns, and parameters of functions within it."""
    own = set(ast.walk(tree.args))
    return {
        node.id if isinstance(node, ast.Name) else node.arg
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.arg) and node not in own)
    }


def _declared_of(tree: ast.FunctionDef) -> set[str]:
    """Return the names that a function declares as others' own."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            found |= set(node.names)
    return found


def _modules_of(tree: ast.FunctionDef) -> set[str]:
    """Return the names that a function imports."""
    return {
        (each.asname or each.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }


def _is_writing(method: str) -> bool:
    """Return whether `method` writes into its object, as those of tensors do by their name."""
    return method in _WRITING or (method.endswith("_") and not method.endswith("__"))


def _is_once(target: ast.Attribute | ast.Subscript, tests: str) -> bool:
    """Return whether `tests` see to it that `target` is written once, as what is made late is."""
    if isinstance(target, ast.Subscript):
        return f"not in {ast.unparse(target.value)}" in tests
    return ast.unparse(target) in tests or f"'{target.attr}'" in tests


def _with_tests(node: ast.AST, tests: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Yield each part of a function with the conditions that it is under."""
    for child in ast.iter_child_nodes(node):
        own = tests
        if isinstance(node, ast.If | ast.IfExp) and child is not node.test:
            own = f"{tests} {ast.unparse(node.test)}"
        yield child, own
        yield from _with_tests(child, own)


def _is_beside(function: FunctionType, other: FunctionType) -> bool:
    """Return whether both functions are of files of one folder."""
    folders = {Path(each.__code__.co_filename).parent for each in (function, other)}
    return len(folders) == 1
