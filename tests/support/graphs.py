"""Small ONNX graphs for tests, and models of them."""

from __future__ import annotations

from typing import Any

from batcher.config.model_file import ModelDefinition
from tests.support.model_folders import Folders

KINDS = {
    "FP32": 1,
    "UINT8": 2,
    "INT32": 6,
    "INT64": 7,
    "BYTES": 8,
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
}
"""ONNX's number of each datatype."""


def value(name: str, dtype: str, *shape: Any) -> Any:
    """Return a tensor of a graph; `shape` has all axes, None or a text for one of any size."""
    from onnx import helper

    return helper.make_tensor_value_info(name, KINDS[dtype], list(shape))


def graph_bytes(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None
) -> bytes:
    """Return the file of a graph."""
    content: bytes = graph(nodes, inputs, outputs, weights).SerializeToString()
    return content


def graph(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None
) -> Any:
    """Return a graph with ONNX's own operators and those for classifiers."""
    from onnx import helper

    made = helper.make_graph(nodes, "graph", inputs, outputs, weights or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, ir_version=9, opset_imports=opsets)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    """Return a node of a graph."""
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, **attributes)


def onnx_model(folders: Folders, content: bytes, yaml: str = "") -> ModelDefinition:
    """Write a model of the graph `content`; `yaml` stands in `model.yaml` beside format and file.

    What `yaml` leaves out is read from the graph.
    """
    return folders.write(f"format: onnx\nfile: net.onnx\n{yaml}\n", {"net.onnx": content})
