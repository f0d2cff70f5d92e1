"""No regular expression of the package can backtrack, whatever a client sends."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from itertools import chain
from pathlib import Path

import pytest

import batcher
from tests.support.patterns import ambiguities

PACKAGE = Path(batcher.__file__).parent

ROOMS = ("core", "codecs", "serving", "frontends")
"""The rooms that read what clients send; patterns of the others read texts of the operator's."""

UNCOMPILED = {"document.py": 1}
"""File to how many patterns it uses without compiling them, on texts of our own."""


def patterns() -> dict[str, re.Pattern[bytes] | re.Pattern[str]]:
    """Return every pattern that a module of the package has compiled, by where it stands."""
    found = {}
    for module in pkgutil.walk_packages([str(PACKAGE)], "batcher."):
        if "_generated" in module.name or module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            for key, entry in value.items() if isinstance(value, dict) else [(name, value)]:
                if isinstance(entry, re.Pattern):
                    found[f"{module.name}.{name}[{key}]"] = entry
    return found


@pytest.mark.parametrize(
    "pattern",
    [r"\d+\.?\d*", r"(a+)+b", r"(a*b?)*c", r"(a|ba*)*b", r'(?:[^,"]|"[^"]*"?)+x', r"\s*\w*\s*$"],
)
def test_a_pattern_that_can_backtrack_is_found(pattern: str) -> None:
    assert ambiguities(re.compile(pattern))


@pytest.mark.parametrize(
    "pattern",
    [r"\d+(\.\d*)?", r"(,a+)+b", r'"(?:[^"\\]|\\.)*"', r"\s*\w+\s*=\s*", r"(\w{1,63}\.)*\w{1,63}"],
)
def test_a_pattern_that_cannot_is_not(pattern: str) -> None:
    assert ambiguities(re.compile(pattern)) == []


def test_no_pattern_of_the_package_can_backtrack() -> None:
    found = patterns()
    assert len(found) >= 10, "patterns are found at all"
    wrong = {place: why for place, pattern in found.items() if (why := ambiguities(pattern))}
    assert wrong == {}


def test_patterns_are_compiled_where_the_other_tests_find_them() -> None:
    uncompiled: dict[str, int] = {}
    for path in chain.from_iterable((PACKAGE / room).rglob("*.py") for room in ROOMS):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("re"), attr=name)):
                    if name not in ("compile", "escape"):
                        uncompiled[path.name] = uncompiled.get(path.name, 0) + 1
    assert uncompiled == UNCOMPILED
