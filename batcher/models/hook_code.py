"""Code of functions, as parsed source, and what the names in the code stand for."""

from __future__ import annotations

import ast
import inspect
import linecache
from pathlib import Path
from textwrap import dedent
from tokenize import TokenError
from types import FunctionType
from typing import Any, Final, TypeGuard

Tree = ast.FunctionDef | ast.Lambda

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, tuple)
"""Types of defaults that nobody can write into."""


def layers_of(function: FunctionType) -> list[FunctionType]:
    """Return `function` and what it wraps, as `functools.wraps` says. Any thread."""
    found: list[FunctionType] = []
    layer: Any = function
    while isinstance(layer, FunctionType) and layer not in found:
        found.append(layer)
        layer = getattr(layer, "__wrapped__", None)
    return found


def tree_of(function: FunctionType) -> Tree | None:
    """Return the parsed source of `function`; None where there is none. Any thread."""
    code = function.__code__
    names = parameters_of(code)
    # Not by `inspect.getsource`: that is the source of what a decorator wraps.
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    try:
        block = inspect.getblock(lines[code.co_firstlineno - 1 :])
        module = ast.parse(dedent("".join(block)))
    except (SyntaxError, ValueError, TokenError):
        return None
    for node in ast.walk(module):
        if isinstance(node, Tree) and [each.arg for each in _arguments(node)] == names:
            return node
    return None


def parameters_of(code: Any) -> list[str]:
    """Return the names of the parameters in `code` that are not `*args` or `**kwargs`."""
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _arguments(tree: Tree) -> list[ast.arg]:
    return [*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs]


def kept_defaults(function: FunctionType) -> set[str]:
    """Return the parameters of `function` whose defaults may be written into. Any thread."""
    return {
        each.name
        for each in inspect.signature(function, follow_wrapped=False).parameters.values()
        if each.default is not each.empty and not isinstance(each.default, _PLAIN)
    }


def shared_of(tree: Tree, function: FunctionType) -> set[str]:
    """Return the names of others that `function` assigns: `global`, `nonlocal`. Any thread."""
    declared = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Global | ast.Nonlocal)
        for name in node.names
    }
    # A function within it may change a name of its own.
    return declared - {*function.__code__.co_varnames, *function.__code__.co_cellvars}


def locals_of(tree: Tree) -> set[str]:
    """Return the names that a function assigns, and all parameters within it. Any thread."""
    found = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return found | {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }


def modules_of(tree: Tree) -> set[str]:
    """Return the names that a function imports."""
    return {
        (each.asname or each.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }


def outer_value(function: FunctionType, name: str) -> Any:
    """Return what `name` is outside of `function`: in its closure or its module; else None."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if name in cells:
        try:
            return cells[name].cell_contents
        except ValueError:  # not assigned yet
            return None
    return function.__globals__.get(name)


def attribute(of: Any, name: str) -> Any:
    """Return the attribute `name` as it is kept, not called; None where that is unknown."""
    if of is None:
        return None
    found = inspect.getattr_static(of, name, None)
    if found is None and "_modules" in getattr(of, "__dict__", {}):  # of a module of PyTorch
        found = of.__dict__["_modules"].get(name)
    return found


def method_called(called: Any) -> Any:
    """Return the method that runs where `called`, an object, is called; None if unknown."""
    is_module = "_modules" in getattr(called, "__dict__", {})  # of PyTorch
    return attribute(type(called), "forward" if is_module else "__call__")


def after_class(function: FunctionType, owner: Any, name: str) -> Any:
    """Return what `super().name` is in `function`, a method of `owner`; None if unknown."""
    here = outer_value(function, "__class__")
    order = (owner if isinstance(owner, type) else type(owner)).__mro__
    if here not in order:
        return None
    later = order[order.index(here) + 1 :]
    return next((vars(each)[name] for each in later if name in vars(each)), None)


def folder_of(function: FunctionType) -> Path:
    """Return the folder of the file that `function` is in. Any thread."""
    return Path(function.__code__.co_filename).parent


def is_within(function: FunctionType, folder: Path) -> bool:
    """Return whether `function` is of `folder`, or of one below. Any thread."""
    own = folder_of(function)
    return own.is_relative_to(folder) and "site-packages" not in own.relative_to(folder).parts


def pairs_of(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Return the targets that `node` assigns, each with the value. Any thread."""
    if isinstance(node, ast.Assign):
        return [(target, node.value) for target in node.targets]
    if isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
        return [(node.target, node.value)]
    if not isinstance(node, ast.For | ast.comprehension):
        return []
    target, values = node.target, node.iter
    if isinstance(target, ast.Tuple) and is_call_of(values, "zip"):
        return [*zip(target.elts, values.args, strict=False)]
    if isinstance(target, ast.Tuple) and is_call_of(values, "enumerate"):
        return [(target.elts[-1], values.args[0])]
    return [(target, values)]


def is_call_of(node: ast.AST, *names: str) -> TypeGuard[ast.Call]:
    """Return whether `node` calls a function that has one of the `names`. Any thread."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def constant(nodes: list[ast.expr]) -> str:
    """Return the text that the first of `nodes` is; empty if it is none. Any thread."""
    node = nodes[0] if nodes else None
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_plain(of: Any, name: str) -> bool:
    """Return whether the function that `of` has under `name` gets no object of its own."""
    return isinstance(of, type) or inspect.ismodule(of) or name in getattr(of, "__dict__", {})


def alternatives(node: ast.expr) -> list[ast.expr]:
    """Return what is taken instead of the last part of an `or`, if it is there. Any thread."""
    return node.values[:-1] if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) else []


def leaves(body: list[ast.stmt]) -> bool:
    """Return whether what follows `body` does not run once `body` has run."""
    return bool(body) and isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
