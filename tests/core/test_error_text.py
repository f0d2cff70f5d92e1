"""What exceptions say, whatever their classes do."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batcher
from batcher.core.error_text import (
    MAX_MESSAGE_CHARS,
    MAX_STACK_CHARS,
    brief,
    brief_names,
    cut,
    message,
    stack,
    summary,
)
from batcher.models.version_code.names import package_name

PACKAGE = Path(batcher.__file__).parent


class Text(str):
    """A text of a model's own class."""


class Unprintable(Exception):
    """Nothing can be had from it."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def __notes__(self) -> list[str]:
        raise SystemExit(3)


@pytest.mark.parametrize("write", [message, summary, stack])
def test_an_exception_that_gives_up_when_it_is_asked_is_written_all_the_same(
    write: Callable[[BaseException], str],
) -> None:
    assert write(Unprintable())


def test_a_class_of_a_models_own_files_is_told_without_the_folder_of_the_model() -> None:
    class Bad(Exception):
        __module__ = f"{package_name('/srv/models/digits/2', 17)}.layers.scaling"

    Bad.__qualname__ = "Bad"
    assert summary(Bad("too dark")) == "layers.scaling.Bad: too dark"
    assert stack(Bad("too dark")).strip() == "layers.scaling.Bad: too dark"


@pytest.mark.parametrize(
    ("write", "most"),
    [(message, MAX_MESSAGE_CHARS), (summary, MAX_MESSAGE_CHARS), (stack, MAX_STACK_CHARS)],
)
def test_what_is_written_is_a_plain_text_that_is_not_too_long(
    write: Callable[[BaseException], str], most: int
) -> None:
    class Saying(Exception):
        def __str__(self) -> str:
            return Text("long" * 1_000_000)

    text = write(Saying())
    assert type(text) is str
    assert len(text) <= most
    assert "characters left out" in text


@given(st.integers(100, 200), st.integers(0, 400))
def test_what_is_cut_fits_and_says_how_much_is_gone(most: int, length: int) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(length))
    found = cut(text, most)
    assert len(found) <= most
    if length <= most:
        assert found == text
    else:
        start, _, rest = found.partition(" … (")
        left_out, _, end = rest.partition(" characters left out) … ")
        assert text.startswith(start)
        assert text.endswith(end)
        assert len(start) + int(left_out) + len(end) == length


def test_what_was_cut_is_not_cut_again() -> None:
    text = cut("long" * 1_000_000, MAX_MESSAGE_CHARS)
    assert cut(text, MAX_MESSAGE_CHARS) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.integers(2, 100))
def test_a_brief_text_is_never_longer_than_it_may_be(value: Any, most: int) -> None:
    assert len(brief(value, most)) <= most


@pytest.mark.parametrize(
    "value", ["x", b"x", 7, -1.5, None, True, [], {}, [1, "a", [2]], {"a": [1, 2]}, (1, 2)], ids=str
)
def test_a_brief_text_of_a_small_value_is_that_of_python(value: Any) -> None:
    assert brief(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 100, "'" + "x" * 78 + "…"),
        (1 << 20_000, "a whole number of 20001 bits"),
        ([1, 2, 3] * 100_000, "[1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, …]"),
        ([[[[1]]]], "[[…]]"),
        (object(), "a value of type object"),
    ],
    ids=["text", "number", "list", "depth", "object"],
)
def test_a_brief_text_leaves_out_what_is_too_much(value: Any, text: str) -> None:
    assert brief(value) == text


def test_a_brief_text_of_lists_without_end_ends() -> None:
    endless: list[Any] = []
    endless.extend([endless] * 1000)
    assert len(brief(endless)) == 80


def test_of_many_names_the_first_are_shown() -> None:
    assert brief_names(["a", "b"]) == "'a', 'b'"
    assert brief_names([]) == ""
    text = brief_names({"x" * 1000 + str(number): 0 for number in range(100_000)})
    assert len(text) < 1400
    assert text.endswith("…, …")


def test_what_clients_sent_is_shown_by_brief_and_never_written_out_to_be_cut() -> None:
    """`f"{value!r:.80}"` writes all of a value of 64 MiB, on the loop, to show 80 characters."""
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node.value)}: use batcher.core.error_text.brief"
        for room in ("core", "codecs", "serving", "frontends")
        for path in (PACKAGE / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and node.format_spec
    ]
    assert found == []
