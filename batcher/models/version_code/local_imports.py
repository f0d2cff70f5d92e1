"""Plain imports of files beside a model: `import features` means the model's own `features.py`.

Python looks plain names up in `sys.modules`, which all models share. So the imports are rewritten
before a file is compiled, to names of the version's own package `p`:

    import features             from p import features
    import features as f        from p import features as f
    import a.b as c             from p.a import b as c
    import a.b                  from p.a import b as a; from p import a
    from features import f      from p.features import f
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable


def with_local_imports(tree: ast.Module, home: Callable[[str], str]) -> ast.Module:
    """Return `tree` with plain imports of the version's own names turned to their packages.

    `home` returns the package of a name, empty for a name that is not the version's. Any thread.
    """
    turned: ast.Module = _LocalImports(home).visit(tree)
    return ast.fix_missing_locations(turned)


class _LocalImports(ast.NodeTransformer):
    """Turns plain imports. Any thread."""

    def __init__(self, home: Callable[[str], str]) -> None:
        self._home = home

    def visit_Import(self, node: ast.Import) -> Iterable[ast.stmt]:
        """Turn `import name, other as alias`, one statement a name where names are local."""
        if not any(self._home_of(alias.name) for alias in node.names):
            return [node]
        statements: list[ast.stmt] = []
        for alias in node.names:
            if home := self._home_of(alias.name):
                statements += _turned(alias, home)
            else:
                statements.append(ast.Import([alias]))
        return [ast.copy_location(statement, node) for statement in statements]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """Turn `from name import …`."""
        if node.level == 0 and node.module and (home := self._home_of(node.module)):
            node.module = f"{home}.{node.module}"
        return node

    def _home_of(self, module: str) -> str:
        return self._home(module.partition(".")[0])


def _turned(alias: ast.alias, home: str) -> list[ast.stmt]:
    """Return the statements for one name of an `import`, whose package is `home`. Any thread."""
    first, *deeper = alias.name.split(".")
    parent, _, last = f"{home}.{alias.name}".rpartition(".")
    statements = [_import_from(parent, last, alias.asname or first)]
    if deeper and not alias.asname:
        # The first statement imports the submodule, the second gives the name its meaning.
        statements.append(_import_from(home, first, first))
    return statements


def _import_from(module: str, name: str, meaning: str) -> ast.stmt:
    """Return `from module import name as meaning`. Any thread."""
    return ast.ImportFrom(module, [ast.alias(name, meaning)], 0)
