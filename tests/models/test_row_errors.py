"""Rows that fail by themselves: exceptions in rows' places, and numbers that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batcher.core.spec import Array
from batcher.errors import ModelContractError
from batcher.models.checked import CheckedModel
from batcher.models.row_errors import non_finite_rows
from tests.support.model_folders import Folders, floats
from tests.support.models import RecordingModel, model_spec, tensor

ERROR = ValueError("this row")


def run(checked: CheckedModel, inputs: Array) -> tuple[dict[str, Array], dict[int, BaseException]]:
    """Run one batch as a worker does; return outputs and rows that failed."""
    return checked.predict(lambda allocate: {"x": inputs}, len(inputs))


def python(folders: Folders, result: str, more: str = "", **settings: Any) -> CheckedModel:
    """Return a loaded model of which `predict` returns `result`, an expression of the array `x`."""
    source = f"""
class Model:
    def predict(self, inputs):
        x = inputs["x"]
        error = ValueError("negative")
        return {result}
{more}
"""
    return folders.load(folders.python(source), **{"warmup": False, **settings})


@pytest.mark.parametrize("row", ["2 * row", "torch.from_numpy(2 * row)"], ids=["array", "tensor"])
def test_a_python_class_fails_single_rows(folders: Folders, row: str) -> None:
    checked = python(folders, f'{{"y": [error if row[0] < 0 else {row} for row in x]}}')
    outputs, failed = run(checked, np.array([[1] * 4, [-1] * 4, [3] * 4], "<f4"))
    assert {row: str(error) for row, error in failed.items()} == {1: "negative"}
    assert outputs["y"][[0, 2], 0].tolist() == [2, 6]
    assert run(checked, floats())[1] == {}, "the next batch has nothing to do with it"


@pytest.mark.parametrize(
    "rows", [[b"a\0", b"bc"], [b"a\0", ERROR], [ERROR, ERROR]], ids=["none", "one", "all"]
)
def test_rows_that_are_texts_may_fail(folders: Folders, rows: list[Any]) -> None:
    listed = ", ".join("error" if row is ERROR else repr(row) for row in rows)
    source = f"""
class Model:
    def predict(self, inputs):
        error = ValueError("no")
        return {{"y": [{listed}]}}
"""
    checked = folders.load(
        folders.python(source, outputs="[{name: y, dtype: BYTES, shape: []}]"), warmup=False
    )
    outputs, failed = run(checked, floats(2))
    assert failed.keys() == {number for number, row in enumerate(rows) if row is ERROR}
    assert all(
        text == row for text, row in zip(outputs["y"], rows, strict=True) if row is not ERROR
    )


def test_rows_that_are_tensors_of_bf16_may_fail(folders: Folders) -> None:
    source = """
class Model:
    def predict(self, inputs):
        x = torch.from_numpy(inputs["x"]).to(torch.bfloat16)
        return {"y": [ValueError("negative") if row[0] < 0 else 2 * row for row in x]}
"""
    checked = folders.load(
        folders.python(source, outputs="[{name: y, dtype: BF16, shape: [4]}]"), warmup=False
    )
    outputs, failed = run(checked, np.array([[-1] * 4, [1] * 4], "<f4"))
    assert failed.keys() == {0}
    assert outputs["y"][1].tolist() == [0x4000] * 4


def test_rows_of_a_model_with_postprocess_fail_too_whatever_its_raw_outputs_are_called(
    folders: Folders,
) -> None:
    checked = python(
        folders,
        '{"raw": [error if row[0] < 0 else row for row in x], "more": [error] * len(x)} if (x < '
        '0).any() else {"raw": x}',
        'def postprocess(self, outputs):\n        return {"y": outputs["raw"]}'.join(
            ("    ", "\n")
        ),
    )
    outputs, failed = run(checked, np.array([[1] * 4, [-1] * 4], "<f4"))
    assert failed.keys() == {0, 1}, "each failed in `more`"
    assert outputs["raw"][0].tolist() == [1] * 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
def test_rows_with_numbers_that_are_none_are_found(wrong: float, dtype: str) -> None:
    spec = model_spec(outputs=(tensor("y", dtype, (2, 2)), tensor("n", "INT64")))
    values = np.ones((3, 2, 2), spec.outputs[0].datatype.numpy)
    values[1, 0, 1] = wrong
    errors = non_finite_rows({"y": values, "n": np.zeros((3, 4), np.int64)}, spec)
    assert errors.keys() == {1}
    assert isinstance(errors[1], ModelContractError)
    assert "expected finite numbers in output 'y'" in str(errors[1])


@pytest.mark.parametrize(
    ("bits", "finite"),
    [(0x3F80, True), (0x7F80, False), (0xFF80, False), (0x7FC0, False), (0x7F7F, True)],
)
def test_bf16_is_looked_at_by_its_bits(bits: int, finite: bool) -> None:
    spec = model_spec(outputs=(tensor("y", "BF16", (1,)),))
    assert bool(non_finite_rows({"y": np.array([[bits]], "<u2")}, spec)) is not finite


def test_rows_without_numbers_are_finite() -> None:
    spec = model_spec(outputs=(tensor("y", shape=(-1,)), tensor("z", shape=())))
    assert non_finite_rows(
        {"y": np.zeros((2, 0), "<f4"), "z": np.array([1, np.nan], "<f4")}, spec
    ).keys() == {1}


def test_only_where_it_is_asked_for_are_outputs_looked_at() -> None:
    inputs = np.array([[1] * 4, [np.nan] * 4], "<f4")
    assert run(CheckedModel(RecordingModel()), inputs)[1] == {}
    assert run(CheckedModel(RecordingModel(), finite_outputs=True), inputs)[1].keys() == {1}


def test_what_postprocess_has_yet_to_clean_is_not_looked_at() -> None:
    model = RecordingModel()
    model.postprocess = dict
    assert run(CheckedModel(model, finite_outputs=True), np.array([[np.nan] * 4], "<f4"))[1] == {}


def test_a_row_s_own_error_is_told_rather_than_the_number_it_left(folders: Folders) -> None:
    checked = python(folders, '{"y": [error, x[1], x[2]]}', finite_outputs=True)
    _, failed = run(checked, np.array([[1] * 4, [np.nan] * 4, [3] * 4], "<f4"))
    assert [type(failed[row]) for row in sorted(failed)] == [ValueError, ModelContractError]
