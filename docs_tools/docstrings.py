"""Pieces of docstrings in Google's form, and tables of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_ITEM = re.compile(r"^    (\w+): ")


def section(docstring: str | None, title: str) -> dict[str, str]:
    """Return the items of the section `title` (`Attributes`, `Args`): name to text."""
    _, _, rest = inspect.cleandoc(docstring or "").partition(f"\n{title}:\n")
    items: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        found = _ITEM.match(line)
        if found:
            name = found[1]
            items[name] = line[found.end() :]
        elif line.strip():
            items[name] += f" {line.strip()}"
    return items


def sentence(text: str) -> str:
    """Return `text` with a capital letter, unless the text begins with code."""
    return text[:1].upper() + text[1:]


def cell(text: str) -> str:
    """Return `text` as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
