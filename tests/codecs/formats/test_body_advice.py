"""A JSON body without `inputs` and `instances`: the error shows what to write."""

from __future__ import annotations

import json

import pytest

from batcher.codecs.content import Content
from batcher.codecs.formats import json_lists
from batcher.core.spec import ModelSpec
from batcher.errors import InvalidInput
from tests.support.codec_inputs import one_input
from tests.support.models import model_spec, tensor

TEXT = one_input("BYTES", (1,))
NUMBERS = one_input("FP32", (2,))
TWO = model_spec((tensor("a", "FP32", (2,)), tensor("b", "FP32", ())))


def refusal(body: object, spec: ModelSpec) -> str:
    with pytest.raises(InvalidInput) as caught:
        json_lists.decode(Content(json.dumps(body).encode()), spec)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "spec", "example"),
    [
        ("a good day", TEXT, '{"inputs": ["a good day"]}'),
        (["a good day", "b"], TEXT, '{"inputs": ["a good day","b"]}'),
        ([1, 2], NUMBERS, '{"inputs": [[1,2]]}'),
        ([[1, 2], [3, 4]], NUMBERS, '{"inputs": [[1,2],[3,4]]}'),
        ({"x": "a good day"}, TEXT, '{"inputs": {"x": ["a good day"]}}'),
        ({"a": [1, 2], "b": 3}, TWO, '{"inputs": {"a": [[1,2]], "b": [3]}}'),
    ],
)
def test_the_example_holds_the_values_and_is_accepted(
    body: object, spec: ModelSpec, example: str
) -> None:
    assert refusal(body, spec).endswith(f": write {example}")
    assert json_lists.decode(Content(example.encode()), spec)


@pytest.mark.parametrize(
    ("body", "spec", "words"),
    [
        ({"input": "a good day"}, TEXT, '; did you mean "inputs"?'),
        ({"id": 1, "instance": [1]}, TEXT, '; did you mean "instances"?'),
        ({"text": "a good day"}, TEXT, ': write {"inputs": {"x": […]}}'),
        ({}, TEXT, ': write {"inputs": {"x": […]}}'),
        ([1, 2], TWO, ': write {"inputs": {"a": […], "b": […]}}'),
        ("long " * 99, TEXT, ': write {"inputs": […]}'),
        ([[0.5] * 2] * 99, NUMBERS, ': write {"inputs": […]}'),
        ([[0.5] * 2] * 99_999, NUMBERS, ': write {"inputs": […]}'),
        ({str(n): n for n in range(99_999)}, TEXT, ': write {"inputs": {"x": […]}}'),
    ],
    ids=range(9),
)
def test_where_values_are_long_or_names_wrong_the_form_is_named(
    body: object, spec: ModelSpec, words: str
) -> None:
    assert refusal(body, spec).endswith(words)
