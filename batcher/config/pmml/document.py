"""A file of PMML becomes a tree of elements, each with its line.

XML can do more than hold a tree: entities that name files or swell to gigabytes, and external
definitions. PMML needs none of that, so a file with a document type is refused before any of it is
read. Depth and size are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

MAX_DEPTH = 4096
"""Elements within each other: a tree of decisions has one a level, and some are deep."""

MAX_BYTES = 1 << 30
"""Bytes of a file: forests of thousands of trees have hundreds of megabytes."""


class Element:
    """An element: its name without a namespace, its attributes, what is in it, and its line."""

    __slots__ = ("attributes", "children", "line", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        """Begin an element without content."""
        self.tag = tag
        self.attributes = attributes
        self.line = line
        self.children: list[Element] = []
        self.text = ""

    def get(self, name: str, default: str = "") -> str:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def number(self, name: str, default: float | None = None) -> float:
        """Return an attribute as a number. Raises ValueError: it is absent or none."""
        if name not in self.attributes and default is not None:
            return default
        try:
            return float(self.attributes[name])
        except (KeyError, ValueError) as err:
            got = self.attributes.get(name, "none")
            raise ValueError(f"{self}: expected a number as {name}; got {got!r:.40}") from err

    def all(self, *tags: str) -> list[Element]:
        """Return the elements in it that have one of the names."""
        return [child for child in self.children if child.tag in tags]

    def find(self, tag: str) -> Element | None:
        """Return the first element in it of that name; None without one."""
        return next((child for child in self.children if child.tag == tag), None)

    def need(self, tag: str) -> Element:
        """Return the first element in it of that name. Raises ValueError: there is none."""
        found = self.find(tag)
        if found is None:
            raise ValueError(f"{self}: expected a {tag} in it; got none")
        return found

    def walk(self) -> Iterator[Element]:
        """Yield the element and all within it, in the order of the file."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += reversed(element.children)

    def __str__(self) -> str:
        """Return name and line, for messages."""
        return f"{self.tag} in line {self.line}"


def read_document(path: Path) -> Element:
    """Return the element PMML of the file at `path`.

    Raises:
        ValueError: the file is no PMML, or holds what a model does not need; the message says what.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes; got {size}")
    reader = _Reader()
    try:
        with path.open("rb") as file:
            reader.parser.ParseFile(file)
    except ExpatError as err:
        raise ValueError(f"expected PMML, an XML file; got {err}") from err
    if reader.root is None or reader.root.tag != "PMML":
        got = reader.root.tag if reader.root is not None else "none"
        raise ValueError(f"expected a file whose element is PMML; got {got}")
    return reader.root


class _Reader:
    """Builds the tree while expat reads the file."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self.parser = ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.buffer_size = 1 << 20  # each part of a text is appended to what is there
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._data

    def _refuse(self, *_: Any) -> None:
        line = self.parser.CurrentLineNumber
        raise ValueError(f"line {line}: expected no document type and no entities; got one")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        element = Element(name.rpartition(" ")[2], attributes, line)
        if len(self._open) >= MAX_DEPTH:
            raise ValueError(f"line {line}: expected at most {MAX_DEPTH} levels; got more")
        if self._open:
            self._open[-1].children.append(element)
        elif self.root is None:
            self.root = element
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _data(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text
