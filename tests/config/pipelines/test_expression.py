"""Conditions: what is parsed, what is refused, and what a condition says of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.pipelines.expression import MAX_CHARS, parse_condition
from batcher.core.ragged import ragged
from batcher.core.spec import Array, TensorSpec
from batcher.serving.pipelines.conditions import test_of as compiled
from tests.support.models import tensor

TYPES: dict[str, TensorSpec] = {
    "a.scores": tensor("scores", shape=(3,)),
    "a.boxes": tensor("boxes", shape=(-1, 4), is_ragged=True),
    "tag": tensor("tag", "BYTES", ()),
    "urgent": tensor("urgent", "BOOL", (1,)),
    "n": tensor("n", "INT64", ()),
    "a.bytes": tensor("bytes", "UINT8", (2,)),
    "least": tensor("least", "INT8", ()),
}
ARRAYS = {
    "a.scores": np.array([[0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [np.nan, 0.9, 0.1]], np.float32),
    "a.boxes": ragged([np.zeros((2, 4)), np.zeros((0, 4)), np.ones((1, 4))]),
    "tag": np.array([b"new", b"old", b"new"], object),
    "urgent": np.array([[True], [False], [False]]),
    "n": np.array([1, 2, 3]),
    "a.bytes": np.array([[3, 5], [250, 250], [0, 0]], np.uint8),
    "least": np.array([-128, 0, 100], np.int8),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("max(a.scores) < 0.5", [False, True, False]),
        ("max(a.scores) != 0.4", [True, False, True]),
        ("a.scores[1] > 0.5", [True, False, True]),
        ("argmax(a.scores) == 1", [True, False, False]),
        ("sum(a.scores) > 0.99 and mean(a.scores) < 1", [True, True, False]),
        ("len(a.boxes) > 0", [True, False, True]),
        ("sum(a.boxes) == 4", [False, False, True]),
        ("len(a.scores) == 3", [True, True, True]),
        ('tag == "new" or urgent', [True, False, True]),
        ("not urgent", [False, True, True]),
        ("urgent == true and urgent != false", [True, False, False]),
        ("urgent == False", [False, True, True]),
        ("1 < n <= 2", [False, True, False]),
        ("n * 2 - 1 == 5", [False, False, True]),
        ("abs(n - 2) + 0 == 0", [False, True, False]),
        ("n / 0 > 5", [True, True, True]),
        ("-n < -2", [False, False, True]),
        ("a.bytes[0] - 5 < 0", [True, False, True]),
        ("-a.bytes[1] < 0", [True, True, False]),
        ("a.bytes[0] + a.bytes[1] == 500", [False, True, False]),
        ("a.bytes[0] * 1000 > 70000", [False, True, False]),
        ("sum(a.bytes) - 9 < 0 and mean(a.bytes) > 0", [True, False, False]),
        ("abs(least) == 128", [True, False, False]),
        ("least < 300 and a.bytes[0] > -1", [True, True, True]),
        (f"n < abs(1{'0' * 20}) and n != 1{'0' * 20}", [True, True, True]),
    ],
)
def test_a_condition_says_which_rows_it_means(text: str, rows: list[bool]) -> None:
    assert compiled(parse_condition(text), TYPES)(ARRAYS).tolist() == rows


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.b.c > 1",
        "(lambda: 1)() > 0",
        "[x for x in n]",
        "max(a.scores, 1) > 0",
        "max(*n)",
        "open('f')",
        "n ** 9 ** 9 > 0",
        "n if n else n",
        "a.scores[1:2] > 0",
        "a.scores[n] > 0",
        "f'{n}' == ''",
        "n := 1",
        "n is n",
        "n in n",
        "...",
        "None",
        "1j",
        "b'x' == tag",
        "",
        "n >",
        "(" * 300 + "n" + ")" * 300,
        "n" + " + n" * 60 + " > 1",
        "n > " + "1" * MAX_CHARS,
        "\x00",
        "~" * 900 + "n",
        "n" + ".a" * 400,
        "n == (n == (n == n) == n) == n",
        "urgent == abs(0 < n < 1) == urgent",
    ],
)
def test_whatever_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_condition(text)


def test_a_function_that_is_not_known_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"not 'maxx'; did you mean max\?"):
        parse_condition("maxx(a.scores) > 1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a.scores < 1", r"write `max\(a\.scores\)` or `a\.scores\[0\]`"),
        ("max(a.scores)", "expected a condition that is true or false; got a number"),
        ("max(n) > 1", "expected several values a row; got n, which is one"),
        ("max(a.boxes) > 1", "expected rows of numbers, of fixed shape"),
        ("tag < 'b'", "expected two numbers; got a text and a text"),
        ("tag == 1", "expected two numbers; got a text and a number"),
        ("n and urgent", "`and`: expected a truth; got a number"),
        ("a.scores[3] > 0", "with an element 3"),
        ("abs(urgent) > 0", r"abs\(\): expected a number; got a truth"),
        ("max(n + 1) > 0", r"max\(\): expected an input or `step.output`"),
        ("1 < 2", "on at least one value of the pipeline"),
    ],
)
def test_a_condition_that_does_not_fit_the_values_is_refused(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        compiled(parse_condition(text), TYPES)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    try:
        condition = parse_condition(text)
    except ValueError:
        return
    assert condition.text == text


def test_many_parts_are_joined_without_a_deep_tree() -> None:
    every = compiled(parse_condition("<=".join(["n"] * 300)), TYPES)
    some = compiled(parse_condition(" or ".join(["urgent"] * 90)), TYPES)
    assert every(ARRAYS).tolist() == [True, True, True]
    assert some(ARRAYS).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "text", ["max(a.scores) < 0.9", "sum(a.boxes) > 0", "len(a.boxes) > 1", "a.scores[0] > n"]
)
def test_of_no_rows_a_condition_means_none(text: str) -> None:
    none: dict[str, Array] = {
        "a.scores": np.zeros((0, 3), np.float32),
        "a.boxes": np.zeros((0, 0, 4)),
        "n": np.zeros(0, np.int64),
    }
    assert compiled(parse_condition(text), TYPES)(none).tolist() == []
