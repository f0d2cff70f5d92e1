"""The outputs of a batch become what the specification promises."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from batcher.core.ragged import is_ragged, ragged
from batcher.core.spec import Array, datatype
from batcher.errors import ModelContractError
from batcher.models.fitting import fit_outputs, fit_raw_outputs
from batcher.models.protocol import PartialOutputs
from tests.support.models import model_spec, rows, tensor

TWO = model_spec(outputs=(tensor("y", "FP32", (2,)), tensor("z", "BOOL", ())))


def zeros(dtype: str, *shape: int) -> Array:
    return np.zeros(shape, datatype(dtype).numpy)


def outputs(**changes: Array) -> dict[str, Array]:
    return {"y": zeros("FP32", 2, 2), "z": zeros("BOOL", 2), **changes}


def test_outputs_that_fit_are_taken_as_they_are_and_further_ones_left_out() -> None:
    given = outputs(more=zeros("FP32", 7))
    fitted, failed = fit_outputs(TWO, given, 2)
    assert fitted.keys() == {"y", "z"}
    assert fitted["y"] is given["y"]
    assert failed == {}


@pytest.mark.parametrize("z", [zeros("BOOL"), zeros("BOOL", 2, 1)])
def test_a_single_row_without_the_axis_of_the_rows_is_told_with_the_mend(z: Array) -> None:
    wrong = {"y": zeros("FP32", 2), "z": zeros("BOOL", 1)}
    with pytest.raises(ModelContractError, match=r"output 'y': it has no axis for .*`squeeze\(-1"):
        fit_outputs(TWO, wrong, 1)
    with pytest.raises(ModelContractError, match=r"output 'z'(: it has no axis|$)") as failed:
        fit_outputs(TWO, outputs(y=zeros("FP32", 1, 2), z=z), 1)
    assert ("squeeze" in str(failed.value)) is not bool(z.ndim)


def test_bytes_and_what_is_below_them_are_what_an_output_of_bytes_holds() -> None:
    array = np.array([[b"", b"a"], [np.bytes_(b"b"), b"c"]], object)
    spec = model_spec(outputs=(tensor("y", "BYTES", (2,)),))
    assert fit_outputs(spec, {"y": array}, 2)[0]["y"] is array


@pytest.mark.parametrize(
    ("wrong_outputs", "complaint"),
    [
        ({}, "model 'm': expected output 'y'; got none"),
        (
            {"y": zeros("FP32", 2, 2), "Z": zeros("BOOL", 2)},
            "model 'm': expected output 'z'; got 'y', 'Z'",
        ),
        (outputs(y=zeros("FP32", 3, 2)), "model 'm': 2 rows in, 3 rows out in output 'y'"),
        (outputs(y=zeros("FP32", 0, 2)), "model 'm': 2 rows in, 0 rows out in output 'y'"),
        (outputs(z=zeros("BOOL")), "model 'm': 2 rows in, a scalar rows out in output 'z'"),
        (outputs(y=np.array({1}, object)), "output 'y': expected an array of 2 rows; got set"),
        (
            outputs(z=zeros("FP64", 2)),
            r"model 'm': output 'z': expected BOOL\[-1\]; got FP64\[2\]: compare it",
        ),
        (
            outputs(y=zeros("FP32", 2, 3)),
            r"model 'm': output 'y': expected FP32\[-1,2\]; got FP32\[2,3\]",
        ),
        (
            outputs(y=zeros("FP64", 2, 2, 1)),
            r"output 'y': expected FP32\[-1,2\]; got FP64\[2,2,1\]",
        ),
    ],
)
def test_outputs_that_break_the_contract_are_refused_with_what_was_expected_and_what_came(
    wrong_outputs: dict[str, Array], complaint: str
) -> None:
    with pytest.raises(ModelContractError, match=complaint):
        fit_outputs(TWO, wrong_outputs, 2)


def test_what_was_left_out_is_named_where_an_output_is_missing() -> None:
    with pytest.raises(ModelContractError, match=r"expected output 'y'; got 'a', 'b\.c'"):
        fit_outputs(TWO, PartialOutputs({}, {}, ("a", "b.c")), 2)


def test_a_row_that_does_not_fit_fails_alone_with_its_number() -> None:
    spec = model_spec(outputs=(tensor("y", "UINT8", ()),))
    fitted, failed = fit_outputs(spec, {"y": np.array([1, 256, 3])}, 3)
    assert {row: str(error) for row, error in failed.items()} == {
        1: "model 'm': output 'y', row 1: expected UINT8; got 256"
    }
    assert fitted["y"][[0, 2]].tolist() == [1, 3]


def test_rows_of_unequal_shapes_stay_ragged_and_are_cast_where_an_axis_is_free() -> None:
    spec = model_spec(outputs=(tensor("y", "FP32", (-1, 2)),))
    fitted, failed = fit_outputs(spec, {"y": ragged([np.ones((1, 2)), np.ones((3, 2))])}, 2)
    assert failed == {}
    assert is_ragged(fitted["y"])
    assert [row.dtype.str for row in fitted["y"]] == ["<f4", "<f4"]


def test_rows_of_unequal_shapes_fail_one_by_one_where_no_axis_is_free() -> None:
    fitted, failed = fit_outputs(
        model_spec(), {"y": ragged([np.ones(4, "<f4"), np.ones(3, "<f4")])}, 2
    )
    assert failed.keys() == {1}
    assert "expected FP32[4]; got FP32[3]: an axis that differs" in str(failed[1])
    assert fitted["y"][0].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "model 'm': expected outputs; got none"),
        ({"raw": rows(1)}, "model 'm': 2 rows in, 1 rows out in output 'raw': `postprocess` gets"),
        (
            {"raw": np.array(1.0)},
            "2 rows in, a scalar rows out in output 'raw': `postprocess` gets",
        ),
        (
            {"raw": np.array([b"a", 3], object)},
            "model 'm': output 'raw': expected texts or numbers; got int 3",
        ),
    ],
    ids=["nothing", "a row less", "a scalar", "no text"],
)
def test_what_goes_to_postprocess_has_a_row_for_each_row(raw: Any, message: str) -> None:
    with pytest.raises(ModelContractError) as raised:
        fit_raw_outputs("m", raw, 2)
    assert message in str(raised.value)


def test_texts_go_to_postprocess_as_bytes() -> None:
    fitted = fit_raw_outputs("m", {"raw": np.array(["a", b"b"], object)}, 2)
    assert fitted["raw"].tolist() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("array", "dtype", "complaint"),
    [
        (
            np.array([Decimal(1), Decimal(2)]),
            "FP32",
            r"Decimal\[2\]: return .*`float\(value\)`",
        ),
        (np.array([1 << 70, 2]), "INT64", r"got int\[2\]: no dtype has whole numbers"),
        (np.array([b"a", b"b"], object), "FP32", r"expected FP32\[-1\]; got BYTES\[2\]: return "),
        (np.array(map(int, "12")), "FP32", r"2 rows; got map: return a list of rows, or an array$"),
        (np.array({1, 2}), "FP32", r"2 rows; got set: return a list of rows, or an array$"),
        (np.array(object()), "FP32", r"2 rows; got object: return a dict such as \{'y': …\}"),
    ],
    ids=["numbers of another kind", "long numbers", "texts", "an iterator", "a set", "an object"],
)
def test_objects_are_named_by_their_class_with_what_to_return(
    array: Array, dtype: str, complaint: str
) -> None:
    spec = model_spec(outputs=(tensor("y", dtype, ()),))
    with pytest.raises(ModelContractError, match=complaint):
        fit_outputs(spec, {"y": array}, 2)


def test_what_one_row_has_several_of_is_told_with_the_shape_to_write() -> None:
    boxes = {"y": zeros("FP32", 3, 2), "z": zeros("BOOL", 1)}
    with pytest.raises(ModelContractError, match=r"1 rows in, 3 rows out.*write `shape: \[-1,2\]`"):
        fit_outputs(TWO, boxes, 1)
