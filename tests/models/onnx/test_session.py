"""Weights in files of their own: read once, so that whoever writes into them changes no answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.config.model_file import ModelDefinition
from batcher.core.spec import DATATYPES, Array
from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from tests.support.graphs import KINDS, graph, node, onnx_model, value
from tests.support.model_folders import Folders, answers

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TABLE = np.arange(4000, dtype="<f4").reshape(1000, 4)


def with_data(
    folders: Folders, model: Any, arrays: Mapping[str, Array], location: str = "net.data"
) -> ModelDefinition:
    """Write `model`, whose initializers `arrays` lie one behind the other in a file `location`."""
    offset = 0
    for name, array in arrays.items():
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.dims.extend(array.shape)
        lie_outside(tensor, location, offset, array.nbytes)
        offset += array.nbytes
    (folders.base / "m/1").mkdir(parents=True, exist_ok=True)
    data(folders).write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    return onnx_model(folders, model.SerializeToString())


def lie_outside(tensor: Any, location: str, offset: int, length: int) -> None:
    """Let `tensor` have its elements in another file."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(text)


def data(folders: Folders) -> Path:
    """Return the file of the weights."""
    return folders.base / "m/1/net.data"


def lookup(dtype: str = "FP32", width: int = 4) -> Any:
    """Return a graph that looks rows up in a table; no kernel packs such a table anew."""
    row, rows = value("row", "INT64", "n"), value("rows", dtype, "n", width)
    return graph([node("Gather", ["table", "row"], ["rows"])], [row], [rows])


def last_row(checked: CheckedModel) -> list[Any]:
    return answers(checked, row=np.array([999]))["rows"].tolist()


def test_weights_that_are_overwritten_change_no_answer_before_a_reload(folders: Folders) -> None:
    definition = with_data(folders, lookup(), {"table": TABLE})
    checked = folders.load(definition)
    with data(folders).open("r+b") as file:
        file.write((TABLE + 1).tobytes())
    assert last_row(checked) == TABLE[-1:].tolist()
    assert last_row(folders.load(definition)) == (TABLE[-1:] + 1).tolist()


def test_weights_whose_file_becomes_shorter_end_no_process(folders: Folders) -> None:
    checked = folders.load(with_data(folders, lookup(), {"table": TABLE}))
    data(folders).write_bytes(b"")
    assert last_row(checked) == TABLE[-1:].tolist()


def test_several_tensors_lie_in_one_file(folders: Folders) -> None:
    model = graph(
        [node("MatMul", ["x", "weight"], ["h"]), node("Add", ["h", "bias"], ["y"])],
        [value("x", "FP32", "n", 4)],
        [value("y", "FP32", "n", 2)],
    )
    weight, bias = np.arange(8, dtype="<f4").reshape(4, 2), np.array([5, 7], "<f4")
    checked = folders.load(with_data(folders, model, {"weight": weight, "bias": bias}))
    data(folders).write_bytes(bytes(40))
    x = np.arange(12, dtype="<f4").reshape(3, 4)
    assert answers(checked, x=x)["y"].tolist() == (x @ weight + bias).tolist()


@pytest.mark.parametrize("dtype", sorted(KINDS.keys() - {"BYTES"}))
def test_weights_of_each_datatype_are_read(folders: Folders, dtype: str) -> None:
    table = (np.arange(2000) % 2).reshape(1000, 2).astype(DATATYPES[dtype].numpy)
    checked = folders.load(with_data(folders, lookup(dtype, 2), {"table": table}))
    data(folders).write_bytes(b"")
    assert last_row(checked) == table[-1:].tolist()


def test_weights_of_a_graph_within_the_graph_are_read_too(folders: Folders) -> None:
    inner = onnx.numpy_helper.from_array(TABLE, "inner")
    content = inner.raw_data
    inner.ClearField("raw_data")
    lie_outside(inner, "net.data", 0, len(content))
    branches = {
        f"{name}_branch": onnx.helper.make_graph(
            [node("Gather", ["inner", "row"], [name])],
            name,
            [],
            [value(name, "FP32", "n", 4)],
            [inner],
        )
        for name in ("then", "else")
    }
    row, rows = value("row", "INT64", "n"), value("rows", "FP32", "n", 4)
    always = onnx.numpy_helper.from_array(np.array(True), "always")
    model = graph([node("If", ["always"], ["rows"], **branches)], [row], [rows], [always])
    definition = with_data(folders, model, {})
    data(folders).write_bytes(content)
    checked = folders.load(definition)
    data(folders).write_bytes(b"")
    assert last_row(checked) == TABLE[-1:].tolist()


@pytest.mark.parametrize("location", ["../net.data", "/etc/hostname", "", "a/../../b"])
def test_weights_outside_of_the_folder_are_refused(folders: Folders, location: str) -> None:
    definition = with_data(folders, lookup(), {"table": TABLE}, location)
    with pytest.raises(ModelLoadError, match="expected weights in a file beside it"):
        folders.load(definition)


def test_weights_that_are_missing_or_short_are_named(folders: Folders) -> None:
    definition = with_data(folders, lookup(), {"table": TABLE})
    data(folders).write_bytes(bytes(100))
    with pytest.raises(
        ModelLoadError, match="expected 16000 bytes of 'table' from byte 0; got 100"
    ):
        folders.load(definition)
    data(folders).unlink()
    with pytest.raises(ModelLoadError, match=r"weights in 'net.data' beside it; there is no"):
        folders.load(definition)


def test_a_run_logs_no_shape_that_a_converter_declared_wrong(
    folders: Folders, capfd: pytest.CaptureFixture[str]
) -> None:
    x, label = value("x", "FP32", "n", 4), value("label", "INT64", 1)  # one label, for any rows
    model = graph([node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)], [x], [label])
    checked = folders.load(onnx_model(folders, model.SerializeToString()))
    assert answers(checked, x=np.eye(3, 4, dtype="f4"))["label"].tolist() == [0, 1, 2]
    assert capfd.readouterr().err == ""


def test_a_graph_that_can_run_on_the_cpu_alone_does_not_wait_for_pytorch(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for module in ("torch", "batcher.models.pytorch.module"):  # to import one is an error now
        monkeypatch.setitem(sys.modules, module, None)
    row, out = value("row", "FP32", "n", 1), value("out", "FP32", "n", 1)
    definition = onnx_model(
        folders, graph([node("Abs", ["row"], ["out"])], [row], [out]).SerializeToString()
    )
    answer = answers(folders.load(definition, device="auto"), row=np.array([[-2]], "f4"))
    assert answer["out"].tolist() == [[2]]
