"""Graphs that were exported in training mode: the log says so, since the answers do not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.graphs import graph_bytes, node, onnx_model, value
from tests.support.model_folders import Folders

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

X, Y = value("x", "FP32", "n", 3), value("y", "FP32", "n", 3)


def notes(folders: Folders, content: bytes) -> list[str]:
    """Return what loading the graph `content` notes."""
    folders.load(onnx_model(folders, content), warmup=False)
    return [line for line in folders.progress if "training mode" in line]


def of_opset(content: bytes, number: int) -> bytes:
    """Return the graph `content` with ONNX's own operators of the version `number`."""
    model = onnx.load_model_from_string(content)
    model.opset_import[0].version = number
    changed: bytes = model.SerializeToString()
    return changed


def constant(name: str, content: Any) -> Any:
    """Return an initializer."""
    return onnx.numpy_helper.from_array(np.asarray(content), name)


def dropout(mode: Any, *before: Any) -> bytes:
    """Return a graph with a dropout whose third input, `mode`, is an initializer."""
    weights = [constant("ratio", np.float32(0.5)), constant("mode", mode)]
    last = node("Dropout", ["x", "ratio", before[-1].output[0] if before else "mode"], ["y"])
    return graph_bytes([*before, last], [X], [Y], weights)


def normalisation(outputs: list[str], **attributes: int) -> bytes:
    """Return a graph that normalises by batches."""
    names = ["scale", "bias", "mean", "variance"]
    weights = [constant(name, np.ones(3, np.float32)) for name in names]
    step = node("BatchNormalization", ["x", *names], outputs, **attributes)
    return graph_bytes([step], [X], [Y], weights)


def branch(name: str, mode: bool) -> Any:
    """Return a graph for a branch of an `If`."""
    weights = [constant(f"{name}_ratio", np.float32(0.5)), constant(f"{name}_mode", mode)]
    step = node("Dropout", ["x", f"{name}_ratio", f"{name}_mode"], [name])
    return onnx.helper.make_graph([step], name, [], [value(name, "FP32", "n", 3)], weights)


def branches(mode: bool) -> bytes:
    """Return a graph with a dropout in a branch."""
    step = node(
        "If", ["which"], ["y"], then_branch=branch("a", False), else_branch=branch("b", mode)
    )
    return graph_bytes([step], [X], [Y], [constant("which", False)])


TRUE = onnx.helper.make_tensor("value", onnx.TensorProto.BOOL, [], [True])


@pytest.mark.parametrize(
    ("content", "operators"),
    [
        (dropout(True), "Dropout"),
        (dropout(True, node("Identity", ["mode"], ["same"])), "Dropout"),
        (dropout(False, node("Constant", [], ["set"], value=TRUE)), "Dropout"),
        (normalisation(["y", "m", "v"], training_mode=1), "BatchNormalization"),
        (of_opset(normalisation(["y", "m", "v", "sm", "sv"]), 9), "BatchNormalization"),
        (branches(True), "Dropout"),
    ],
)
def test_a_graph_in_training_mode_is_noted_with_the_mend(
    folders: Folders, content: bytes, operators: str
) -> None:
    (note,) = notes(folders, content)
    assert f"training mode ({operators})" in note
    assert "Call `.eval()` before the export" in note


@pytest.mark.parametrize(
    "content",
    [
        dropout(False),
        dropout(
            np.int64(1), node("Cast", ["mode"], ["given"], to=9), node("Not", ["given"], ["f"])
        ),
        graph_bytes([node("Dropout", ["x"], ["y"])], [X], [Y]),
        normalisation(["y"]),
        of_opset(normalisation(["y"]), 9),
        branches(False),
    ],
)
def test_a_graph_that_was_exported_to_be_served_is_not_noted(
    folders: Folders, content: bytes
) -> None:
    assert notes(folders, content) == []


@pytest.mark.filterwarnings("ignore")  # the exporter's own, of its age
@pytest.mark.parametrize("is_training", [True, False])
def test_what_pytorch_exports_says_how_it_runs(folders: Folders, is_training: bool) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())
    mode = torch.onnx.TrainingMode
    file = io.BytesIO()
    torch.onnx.export(
        net.train(is_training),
        (torch.zeros(2, 3),),
        file,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        training=mode.TRAINING if is_training else mode.EVAL,
        do_constant_folding=not is_training,
        dynamo=False,
    )
    found = notes(folders, file.getvalue())
    assert [("BatchNormalization, Dropout" in note) for note in found] == [True] * is_training
