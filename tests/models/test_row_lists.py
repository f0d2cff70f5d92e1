"""An output that was returned as a list of rows becomes one value; its rows fail by themselves."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.ragged import is_ragged
from batcher.core.spec import Array
from batcher.models.fitting import fit_outputs
from batcher.models.row_lists import array_of_rows
from tests.support.models import model_spec, tensor

ERROR = ValueError("this row")


def rows_of(
    values: Any, dtype: str = "FP32", shape: tuple[int, ...] = (4,)
) -> tuple[Array, dict[int, str]]:
    """Return the rows as a worker gets them, and the messages of those that failed."""
    spec = model_spec(outputs=(tensor("y", dtype, shape),))
    array, errors = array_of_rows(values, spec.outputs[0], "y")
    fitted, misfits = fit_outputs(spec, {"y": array}, len(values))
    return fitted["y"], {row: str(error) for row, error in (misfits | errors).items()}


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_what_stands_beside_an_exception_keeps_its_place(failed: list[bool]) -> None:
    value = [ERROR if wrong else np.full(4, row, "<f4") for row, wrong in enumerate(failed)]
    array, errors = rows_of(value)
    assert errors == {row: "this row" for row, wrong in enumerate(failed) if wrong}
    assert array.shape == (len(failed), 4)
    assert all(array[row][0] == row for row, wrong in enumerate(failed) if not wrong)


@pytest.mark.parametrize("dtype", ["FP32", "INT64", "BOOL", "BYTES", "BF16"])
@pytest.mark.parametrize("shape", [(2, -1), (2,), ()], ids=str)
def test_if_every_row_fails_the_specification_says_what_a_row_is(
    dtype: str, shape: tuple[int, ...]
) -> None:
    array, errors = rows_of([ERROR, ERROR], dtype, shape)
    assert errors.keys() == {0, 1}
    assert len(array) == 2


@pytest.mark.parametrize(
    ("values", "shape", "expected"),
    [
        ([[1, 2], [3]], (-1,), [[1, 2], [3]]),
        ([np.ones(2), np.ones(0), []], (-1,), [[1, 1], [], []]),
        ([[[1, 2]], []], (-1, 2), [[[1, 2]], []]),
        ([np.zeros((2, 0)), np.zeros((2, 1))], (2, -1), [[[], []], [[0], [0]]]),
        ((np.ones(2, "<i8"), np.ones(1, "<f8")), (-1,), [[1, 1], [1]]),
    ],
    ids=["lists", "arrays", "boxes", "the second axis", "a tuple of dtypes"],
)
def test_rows_that_differ_in_a_free_axis_are_ragged_and_have_the_declared_dtype(
    values: Any, shape: tuple[int, ...], expected: Any
) -> None:
    array, errors = rows_of(values, "FP32", shape)
    assert errors == {}
    assert is_ragged(array)
    assert [row.tolist() for row in array] == expected
    assert {row.dtype.str for row in array} == {"<f4"}
    assert {row.ndim for row in array} == {len(shape)}


@pytest.mark.parametrize("dtype", ["INT64", "FP32", "BYTES"])
def test_rows_that_all_have_no_elements_have_the_declared_dtype(dtype: str) -> None:
    array, errors = rows_of([[], []], dtype, (-1,))
    assert errors == {}
    assert array.shape == (2, 0)
    assert array.dtype == tensor("y", dtype, ()).datatype.numpy


def test_rows_of_one_shape_are_an_ordinary_array() -> None:
    array, errors = rows_of([[1.5, 2], [3, 4]], "FP32", (-1,))
    assert errors == {}
    assert array.tolist() == [[1.5, 2], [3, 4]]


@pytest.mark.parametrize(
    ("values", "shape", "expected"),
    [
        (["a", "ü"], (), [b"a", "ü".encode()]),
        ([b"a\0", "b"], (), [b"a\0", b"b"]),
        ([["a", b"b\0"], ["c", "d"]], (2,), [[b"a", b"b\0"], [b"c", b"d"]]),
        ([["a"], ["b", "c"], []], (-1,), [[b"a"], [b"b", b"c"], []]),
        ([np.array(["a", "bc"]), np.array([b"d"])], (-1,), [[b"a", b"bc"], [b"d"]]),
    ],
    ids=["str", "bytes with a zero", "several a row", "unequal", "arrays"],
)
def test_texts_become_bytes(values: Any, shape: tuple[int, ...], expected: Any) -> None:
    array, errors = rows_of(values, "BYTES", shape)
    assert errors == {}
    assert [getattr(row, "tolist", lambda row=row: row)() for row in array] == expected


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (None, "got NoneType: return numbers"),
        (np.ones(3), "got FP64[3]: an axis that differs between rows is -1 in the shape"),
        (np.ones((1, 4)), "got FP64[1,4]"),
        (["a", "b", "c", "d"], "got BYTES[4]"),
        ([1, 2, 3, 1e40], "got 1e+40"),
        (object(), "got object"),
    ],
    ids=["none", "short", "too many axes", "text", "out of range", "an object"],
)
def test_a_row_that_is_none_of_the_output_fails_alone_and_says_what_came(
    row: Any, complaint: str
) -> None:
    array, errors = rows_of([np.ones(4, "<f4"), row, np.full(4, 2, "<f4")])
    assert errors.keys() == {1}
    assert complaint in errors[1]
    assert "row 1: expected FP32" in errors[1]
    assert [array[0].tolist(), array[2].tolist()] == [[1] * 4, [2] * 4]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.ones(2), np.ones(3)], [[1, 1], [1, 1, 1]]),
        (["a", "b\0"], [b"a", b"b\0"]),
        ([["a"], ["b", "c"]], [[b"a"], [b"b", b"c"]]),
        ([1, [2.5]], [1, [2.5]]),
    ],
    ids=["numbers", "texts", "unequal texts", "anything"],
)
def test_rows_for_postprocess_may_have_any_shape(values: Any, expected: Any) -> None:
    array, errors = array_of_rows(values, None, "y")
    assert errors == {}
    assert [row.tolist() if isinstance(row, np.ndarray) else row for row in array] == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_class_are_a_text(kind: type) -> None:
    array, errors = rows_of([kind(b"ab"), kind(b"")], "BYTES", ())
    assert array.tolist() == [b"ab", b""]
    assert errors == {}


def test_a_value_that_is_no_text_says_what_to_return() -> None:
    _, errors = rows_of([date(2020, 1, 1), 3], "BYTES", ())
    assert errors[0].endswith(
        "got a value of type date: return texts, such as `str(value)` of each"
    )
    assert errors[1].endswith("got int 3")
