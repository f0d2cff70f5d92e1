"""The reference of the Python API, read from the sources.

The sources are parsed, not imported: what is compiled has neither signatures nor sources.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import batcher
import batcher.client
from docs_tools.docstrings import section

_SINGULAR = {"Attributes": "attribute", "Args": "argument", "Raises": "raises"}
ROOT = Path(__file__).resolve().parent.parent


def python_page() -> str:
    """Return the page of the Python API."""
    own = [_entry("batcher", name, module) for name, module in sorted(batcher._HOMES.items())]
    clients = [
        _entry("batcher.client", name, _module_of_client(name))
        for name in sorted(batcher.client.__all__)
    ]
    errors = inspect.cleandoc(_parsed("batcher.errors")[1] or "")
    tree = errors[errors.index("      ") : errors.index("\n\nAuthors of models")]
    return f"""# The Python API

Names of `batcher`, of `batcher.client` and of `batcher.errors` stay where they are; modules below
may move.

## `batcher`

{"".join(own)}
## `batcher.client`

[The page of the client](../client.md) has examples.

{"".join(clients)}
## `batcher.errors`

Every failure that a client or an operator can see. A model may raise `InvalidInput`, and
`ModelError` and those below it.

```text
{inspect.cleandoc(tree)}
```
"""


def _module_of_client(name: str) -> str:
    form = batcher.client._MODULE_OF_FORM.get(name)
    return f"batcher.client.{form}" if form else getattr(batcher.client, name).__module__


def _parsed(module: str) -> tuple[ast.Module, str | None]:
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text())
    return tree, ast.get_docstring(tree, clean=False)


def _entry(package: str, name: str, module: str) -> str:
    for node in _parsed(module)[0].body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return _described(f"{package}.{name}", node)
    raise LookupError(f"{module} does not define {name}")


def _described(title: str, node: ast.ClassDef | ast.FunctionDef) -> str:
    if isinstance(node, ast.FunctionDef):
        return f"### {node.name}\n\n`{title}{_signature(node)}`\n\n{_prose(node)}\n"
    constructors = [each for each in _methods(node, public=False) if each.name == "__init__"]
    signature = _signature(constructors[0]) if constructors else ""
    parts = [f"### {node.name}\n\n`{title}{signature}`\n\n{_prose(node)}\n"]
    # The settings have a page of their own.
    if not _is_settings(node):
        for method in _methods(node, public=True):
            call = "" if _is_property(method) else _signature(method)
            prefix = "await " if isinstance(method, ast.AsyncFunctionDef) else ""
            parts.append(f"**`{prefix}{node.name}.{method.name}{call}`**\n\n{_prose(method)}")
    return "\n".join(parts) + "\n"


def _is_settings(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Section" for base in node.bases)


def _is_property(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        isinstance(each, ast.Name) and each.id == "property" for each in method.decorator_list
    )


def _methods(node: ast.ClassDef, public: bool) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for each in node.body:
        is_method = isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_method and not (public and each.name.startswith("_")):
            yield each


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the arguments without `self`, with defaults and the type of the result."""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    result = "" if node.name == "__init__" or node.returns is None else ast.unparse(node.returns)
    return f"({arguments})" + (f" -> {result}" if result else "")


def _prose(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the docstring as Markdown: the text, then a list for each section."""
    if isinstance(node, ast.ClassDef) and _is_settings(node):
        page = "settings.md"
        return (
            f"{(ast.get_docstring(node) or '').splitlines()[0]} Its fields: [settings]({page}).\n"
        )
    docstring = ast.get_docstring(node) or ""
    text = docstring
    lists = []
    for title in _SINGULAR:
        items = section(docstring, title)
        text = text.partition(f"\n{title}:\n")[0]
        lists += [f"- {_SINGULAR[title]} `{name}`: {said}" for name, said in items.items()]
    return text.strip() + "\n" + ("\n" + "\n".join(lists) + "\n" if lists else "")
