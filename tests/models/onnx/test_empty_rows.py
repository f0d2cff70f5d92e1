"""Rows without an element: a graph that fails on them names the axis, and others may run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batcher.config.model_file import ModelDefinition
from batcher.errors import InvalidInput
from tests.support.graphs import graph_bytes, node, onnx_model, value
from tests.support.model_folders import Folders, answers

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Y = value("y", "FP32", "rows")
YAML = "inputs: [{name: x, warmup_shape: [4]}]"


def first(folders: Folders, *axes: Any) -> ModelDefinition:
    """Return a model that takes the first element of each row, and fails without one."""
    weights = [onnx.numpy_helper.from_array(np.array(0, np.int64), "index")]
    step = node("Gather", ["x", "index"], ["y"], axis=1)
    x = value("x", "FP32", *axes)
    return onnx_model(folders, graph_bytes([step], [x], [Y], weights), YAML)


def empty(*shape: int) -> Any:
    return np.zeros(shape, "<f4")


def test_a_graph_that_fails_on_a_width_of_0_names_the_axis(
    folders: Folders, capfd: pytest.CaptureFixture[str]
) -> None:
    model = folders.load(first(folders, "rows", "width"))
    assert answers(model, x=np.array([[3, 1]], "<f4"))["y"].tolist() == [3]
    with pytest.raises(InvalidInput) as caught:
        answers(model, x=empty(2, 0))
    assert capfd.readouterr().err == ""  # a client could fill the log with onnxruntime's own lines
    assert str(caught.value) == (
        "input 'x': expected at least 1 element on axis 1 ('width'), without which the graph "
        "fails; got 0"
    )


def test_an_axis_without_a_name_is_named_by_its_number(folders: Folders) -> None:
    model = folders.load(first(folders, "rows", None))
    with pytest.raises(InvalidInput, match="on axis 1, without which"):
        answers(model, x=empty(1, 0))


def test_a_graph_that_runs_without_an_element_answers(folders: Folders) -> None:
    step = node("ReduceSumSquare", ["x"], ["y"], axes=[1], keepdims=0)
    x = value("x", "FP32", "rows", "width")
    model = folders.load(onnx_model(folders, graph_bytes([step], [x], [Y]), YAML))
    assert answers(model, x=empty(2, 0))["y"].tolist() == [0, 0]
