"""ONNX graphs whose tensors are strings: BYTES of a client are their text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batcher.config.model_file import ModelDefinition
from batcher.errors import InvalidInput
from tests.support.model_folders import Folders, answers

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def graph(folders: Folders, node: Any, dtypes: tuple[str, str]) -> ModelDefinition:
    """Return a model of one node; an input or output of BYTES is of strings."""
    kinds = {"BYTES": onnx.TensorProto.STRING, "INT64": onnx.TensorProto.INT64}
    x, y = (
        onnx.helper.make_tensor_value_info(name, kinds[dtype], ["rows", 1])
        for name, dtype in zip("xy", dtypes, strict=True)
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "strings", [x], [y]),
        ir_version=8,
        opset_imports=[onnx.helper.make_opsetid(*pair) for pair in (("", 16), ("ai.onnx.ml", 2))],
    )
    return folders.define(
        "format: onnx\nfile: net.onnx",
        {"net.onnx": model.SerializeToString()},
        inputs=f"[{{name: x, dtype: {dtypes[0]}, shape: [1]}}]",
        outputs=f"[{{name: y, dtype: {dtypes[1]}, shape: [1]}}]",
    )


def rows(*values: Any) -> np.ndarray[Any, Any]:
    kind = object if isinstance(values[0], bytes) else "<i8"
    return np.array([[value] for value in values], kind)


def test_strings_come_out_as_they_went_in(folders: Folders) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = folders.load(graph(folders, node, ("BYTES", "BYTES")))
    sent = rows(b"a", "ä".encode(), b"")
    assert answers(model, x=sent)["y"].tolist() == sent.tolist()


def test_strings_become_numbers_and_numbers_strings(folders: Folders) -> None:
    node = onnx.helper.make_node(
        *("LabelEncoder", ["x"], ["y"]),
        domain="ai.onnx.ml",
        keys_strings=["a", "b"],
        values_int64s=[1, 2],
    )
    model = folders.load(graph(folders, node, ("BYTES", "INT64")))
    assert answers(model, x=rows(b"b", b"a"))["y"].tolist() == [[2], [1]]
    node = onnx.helper.make_node(
        *("LabelEncoder", ["x"], ["y"]),
        domain="ai.onnx.ml",
        keys_int64s=[1, 2],
        values_strings=["a", "b"],
    )
    model = folders.load(graph(folders, node, ("INT64", "BYTES")))
    assert answers(model, x=rows(2, 1))["y"].tolist() == [[b"b"], [b"a"]]


def test_bytes_that_are_no_text_are_refused(folders: Folders) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = folders.load(graph(folders, node, ("BYTES", "BYTES")))
    with pytest.raises(InvalidInput, match=r"input 'x': expected text in UTF-8; got b'\\xff'"):
        answers(model, x=rows(b"\xff"))
