"""`text/csv` for a model of several inputs of one value each: a table with a header."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from batcher.codecs.content import Content
from batcher.codecs.formats import csv_answers, csv_rows
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput
from tests.support.codec_inputs import damaged, decoded_or_refused, echo_spec, response, same
from tests.support.models import tensor

TABLE = echo_spec(
    tensor("age", "INT32", ()),
    tensor("height", "FP32", (1,)),
    tensor("smokes", "BOOL", ()),
    tensor("name", "BYTES", ()),
)


def decode(body: bytes | str, spec: ModelSpec) -> dict[str, Array]:
    inputs = csv_rows.decode(
        Content(body.encode() if isinstance(body, str) else body, "text/csv"), spec
    )
    check_inputs(spec, inputs)
    return inputs


def test_a_table_names_its_columns_in_any_order() -> None:
    found = decode("smokes, name ,height,age\ntrue,Ann,1.8,30\n0,Bo,1.6,40\n", TABLE)
    assert {name: array.tolist() for name, array in found.items()} == {
        "age": [30, 40],
        "height": [[np.float32(1.8)], [np.float32(1.6)]],
        "smokes": [True, False],
        "name": [b"Ann", b"Bo"],
    }


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            "age,height,smokes\n1,2,0\n",
            "line 1: expected a header of age, height, smokes, name in any order; got age, "
            "height, smok",
        ),
        ("age,height,smokes,nam\n1,2,0,a\n", "got age, height, smokes, nam"),
        ("age,age,height,smokes,name\n1,1,2,0,a\n", "got age, age"),
        (
            "1,2,0,a\n",
            "line 1: expected a header of .*A model of several inputs needs a header, .*put the "
            "line 'age,height,smokes,name' before the rows, or .* `text/csv; header=absent`",
        ),
        ("age;height;smokes;name\n1;2;0;a\n", "Cells are separated by commas, not by ';'"),
        ("age\theight\tsmokes\tname\n1\t2\t0\ta\n", "separated by commas, not by a tab"),
        ("1;2;0;a\n", "Cells are separated by commas, not by ';'"),
        ("age,height,smokes,name\n1,2,0\n", "line 2: expected 4 cells; got 3"),
        (
            "age,height,smokes,name\n1,2,0,a\n1,x,0,a\n",
            "line 3, cell 2: expected FP32 for 'height'; got 'x'",
        ),
        (
            "age,height,smokes,name\n\n1,2,0,a\n1,2,maybe,a\n",
            "line 4, cell 3: expected BOOL for 'smokes'; got 'maybe'",
        ),
        (
            "age,height,smokes,name\n1.5,2,0,a\n",
            "input 'age'.*expected a whole number for INT32; got 1.5",
        ),
        ("age,height,smokes,name1,2,0,a", "got age, .*The body has no line end: `curl -d"),
        ("age,height,smokes,name\n", "expected at least 1 row; got 0"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(body: str, complaint: str) -> None:
    with pytest.raises((DecodingError, InvalidInput), match=complaint):
        decode(body, TABLE)


def test_a_table_that_is_answered_can_be_sent_back() -> None:
    inputs = decode("age,height,smokes,name\n30,1.8,1,Ann\n", TABLE)
    again = decode(bytes(csv_answers.encode(response(**inputs), TABLE)), TABLE)
    for name, array in inputs.items():
        same(again[name], array)


@given(damaged([b"smokes,name,height,age\ntrue,Ann,1.8,30\n"]))
def test_a_damaged_table_is_rows_or_refused(body: bytes) -> None:
    decoded_or_refused(csv_rows.decode, body, TABLE)
