"""The dtype table, and the check of inputs against a specification."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.spec import (
    DATATYPES,
    Array,
    Datatype,
    check_inputs,
    datatype,
    describe_array,
    shape_text,
)
from batcher.errors import InvalidInput
from tests.support.models import model_spec, tensor

ROW_SHAPES = st.lists(st.integers(-1, 4), max_size=3).map(tuple)
TWO = model_spec(
    inputs=(tensor("a", "FP32", (2,)), tensor("b", "INT64", (-1, 3))),
    outputs=(tensor("y", "FP32", (2,)), tensor("z", "BOOL", ())),
)


def zeros(dtype: str, *shape: int) -> Array:
    return np.zeros(shape, datatype(dtype).numpy)


def inputs(**changes: Array) -> dict[str, Array]:
    return {"a": zeros("FP32", 2, 2), "b": zeros("INT64", 2, 5, 3), **changes}


@pytest.mark.parametrize("row", DATATYPES.values(), ids=DATATYPES)
def test_every_datatype_is_found_by_both_its_names_in_any_case(row: Datatype) -> None:
    for name in (row.name, row.alias, row.name.lower(), row.alias.upper()):
        assert datatype(name) is row


@pytest.mark.parametrize(
    "row", [row for row in DATATYPES.values() if row.name != "BYTES"], ids=lambda row: row.name
)
def test_the_usual_name_is_that_of_pytorch_and_has_the_same_size(row: Datatype) -> None:
    assert getattr(torch, row.alias).itemsize == row.numpy.itemsize


@pytest.mark.parametrize(
    "row",
    [row for row in DATATYPES.values() if row.name not in ("BYTES", "BF16")],
    ids=lambda row: row.name,
)
def test_the_usual_name_is_that_of_numpy(row: Datatype) -> None:
    assert row.numpy == np.dtype(row.alias).newbyteorder("<")


@pytest.mark.parametrize("name", ["", "FLOAT", "fp8", "int", "complex64", "FP 32"])
def test_an_unknown_datatype_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(KeyError, match=f"expected one of BOOL, .*BYTES; got '{name}'"):
        datatype(name)


@given(
    st.sampled_from(sorted(DATATYPES)),
    ROW_SHAPES,
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.integers(0, 4), max_size=4),
)
def test_an_array_is_admitted_exactly_if_dtype_and_every_fixed_size_agree(
    want: str, row: tuple[int, ...], have: str, shape: list[int]
) -> None:
    expected = (
        datatype(want).numpy == datatype(have).numpy
        and len(shape) == len(row) + 1
        and all(size in (-1, found) for size, found in zip(row, shape[1:], strict=True))
    )
    assert tensor("x", want, row).admits(zeros(have, *shape)) is expected


def test_a_big_endian_array_is_not_admitted() -> None:
    assert not tensor("x", "FP32", (2,)).admits(np.zeros((1, 2), ">f4"))


@given(ROW_SHAPES)
def test_fixed_size_and_free_axes_together_cover_the_shape(shape: tuple[int, ...]) -> None:
    spec = tensor("x", "FP32", shape)
    assert spec.free_axes == sum(size < 0 for size in shape)
    ones = tuple(1 if size < 0 else size for size in shape)
    assert spec.fixed_size == np.zeros(ones).size


def test_a_specification_is_described_with_its_free_batch_axis() -> None:
    assert tensor("x", "BF16", (1, -1)).describe() == "BF16[-1,1,-1]"
    assert tensor("x", "BYTES", ()).describe() == "BYTES[-1]"


def test_what_came_is_described_by_dtype_and_shape() -> None:
    assert describe_array(zeros("FP16", 2, 3)) == "FP16[2,3]"
    assert describe_array(zeros("BYTES", 1)) == "BYTES[1]"
    assert describe_array(np.array(1.5)) == "FP64[]"
    assert shape_text((1, -1)) == "[1,-1]"


def test_inputs_that_fit_give_their_number_of_rows() -> None:
    assert check_inputs(TWO, inputs()) == 2


@given(st.integers(1, 5), st.integers(0, 5))
def test_free_axes_take_any_size_and_the_batch_axis_any_number_of_rows(
    rows: int, free: int
) -> None:
    assert (
        check_inputs(TWO, {"b": zeros("INT64", rows, free, 3), "a": zeros("FP32", rows, 2)}) == rows
    )


@pytest.mark.parametrize(
    ("wrong_inputs", "complaint"),
    [
        ({}, "model 'm': expected inputs 'a', 'b'; got none"),
        ({"a": zeros("FP32", 2, 2)}, "model 'm': expected inputs 'a', 'b'; got 'a'"),
        (
            {"a": zeros("FP32", 2, 2), "c": zeros("FP32", 2)},
            "expected inputs 'a', 'b'; got 'a', 'c'",
        ),
        (inputs(c=zeros("FP32", 2)), "expected inputs 'a', 'b'; got 'a', 'b', 'c'"),
        (inputs(a=zeros("FP64", 2, 2)), r"input 'a': expected FP32\[-1,2\]; got FP64\[2,2\]"),
        (inputs(a=zeros("FP32", 2, 3)), r"input 'a': expected FP32\[-1,2\]; got FP32\[2,3\]"),
        (inputs(a=zeros("FP32", 2)), r"input 'a': expected FP32\[-1,2\]; got FP32\[2\]"),
        (inputs(a=zeros("FP32")), r"input 'a': expected FP32\[-1,2\]; got FP32\[\]"),
        (
            inputs(b=zeros("INT64", 2, 5, 4)),
            r"input 'b': expected INT64\[-1,-1,3\]; got INT64\[2,5,4\]",
        ),
        (inputs(b=zeros("INT64", 3, 5, 3)), "input 'b': expected 2 rows, as in 'a'; got 3"),
        (
            {"a": zeros("FP32", 0, 2), "b": zeros("INT64", 0, 5, 3)},
            "expected at least 1 row; got 0",
        ),
        (inputs(a=zeros("BYTES", 2, 2)), r"input 'a': expected FP32\[-1,2\]; got BYTES\[2,2\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected_and_what_came(
    wrong_inputs: dict[str, Array], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        check_inputs(TWO, wrong_inputs)
