"""Lines that are lists of numbers, straight into an array: what they give, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batcher.codecs.formats.json_documents import inputs_of
from batcher.codecs.row_files.number_lines import NumberLines
from batcher.core.decoding_limits import NO_LIMITS
from batcher.core.spec import Array, ModelSpec
from tests.support.models import model_spec, tensor

SINGLE = model_spec((tensor("x", "FP32", (3,)),))
DOUBLE = model_spec((tensor("x", "FP64", (3,)),))
EDGES = [0.1, -0.0, 1e-45, 3.4028235e38, 1 / 3, 16777217, 2**63, -7, 1e-310]


def found(spec: ModelSpec, *texts: str) -> dict[str, Array] | None:
    return NumberLines(spec).inputs([(text.encode(), json.loads(text)) for text in texts])


@pytest.mark.parametrize("spec", [SINGLE, DOUBLE])
def test_numbers_are_those_that_other_lines_give(spec: ModelSpec) -> None:
    rows: list[Any] = [EDGES[at : at + 3] for at in range(0, 9, 3)]
    rows[1] = {"x": rows[1]}
    array = found(spec, *map(json.dumps, rows))
    expected = inputs_of({"instances": [rows[0], rows[1]["x"], rows[2]]}, spec, NO_LIMITS, None)
    assert array is not None
    assert array["x"].dtype == expected["x"].dtype
    assert array["x"].tobytes() == expected["x"].tobytes()


@pytest.mark.parametrize(
    "text",
    [
        "[1,2]",
        "[1,2,3,4]",
        "[1,2,true]",
        "[false,2,3]",
        "[1,2,null]",
        '[1,2,"3"]',
        "[1,2,[3]]",
        "[[1,2,3]]",
        "[1,2,1e39]",
        '{"y":[1,2,3]}',
        '{"x":[1,2,3],"y":1}',
        '{"x":"abc"}',
        '"abc"',
        "7",
        "null",
    ],
)
def test_what_is_no_list_of_that_many_numbers_is_refused_with_its_neighbours(text: str) -> None:
    assert found(SINGLE, "[1,2,3]", text) is None


def test_models_of_other_inputs_have_no_such_lines() -> None:
    for other in (tensor("x", "INT32", (3,)), tensor("x", "FP32", (-1,)), tensor("x", "FP32", ())):
        assert found(model_spec((other,)), "[1,2,3]") is None
    assert found(model_spec((tensor("x", "FP32", (3,)), tensor("y", "FP32", (3,)))), "[1]") is None
