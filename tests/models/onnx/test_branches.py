"""A branch that values of rows decide is noted, since all rows of a batch share the branch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.graphs import graph_bytes, node, onnx_model, value
from tests.support.model_folders import Folders

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

X, Y = value("x", "FP32", "n", 3), value("y", "FP32", "n", 3)
FLAG = value("flag", "BOOL")
SIZE = [
    node("Shape", ["x"], ["shape"]),
    node("ReduceSum", ["shape"], ["total"], keepdims=0),
    node("Greater", ["total", "four"], ["decision"]),
]
VALUES = [
    node("ReduceSum", ["x"], ["sum"], keepdims=0),
    node("Cast", ["sum"], ["total"], to=7),
    node("Greater", ["total", "four"], ["decision"]),
]
INPUT = [node("Not", ["flag"], ["decision"])]


def branching(decision: list[Any], *more_inputs: Any) -> bytes:
    """Return a graph whose branch the nodes `decision` decide."""
    ways = {
        f"{name}_branch": onnx.helper.make_graph(
            [node(kind, ["x"], [name])], name, [], [value(name, "FP32", "n", 3)]
        )
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }
    four = onnx.numpy_helper.from_array(np.array(4), "four")
    nodes = [*decision, node("If", ["decision"], ["y"], **ways)]
    return graph_bytes(nodes, [X, *more_inputs], [Y], [four])


def notes(folders: Folders, content: bytes, yaml: str = "") -> list[str]:
    """Return what loading the graph `content` notes of branches."""
    folders.load(onnx_model(folders, content, yaml))
    return [line for line in folders.progress if "takes a branch" in line]


def test_a_branch_that_values_of_rows_decide_is_noted_with_the_mend(folders: Folders) -> None:
    (note,) = notes(folders, branching(VALUES))
    assert "by the values of 'x', once for all rows" in note
    assert note.endswith("set max_batch_size to 1")


def test_a_branch_that_sizes_or_a_constant_decide_is_not_noted(folders: Folders) -> None:
    assert notes(folders, branching(SIZE)) == []
    assert notes(folders, branching(INPUT, FLAG), "constants: {flag: true}") == []


def test_where_rows_run_alone_anyhow_nothing_is_noted(folders: Folders) -> None:
    yaml = "inputs: [{name: x}, {name: flag, shape: []}]"
    assert notes(folders, branching(INPUT, FLAG), yaml) == []
