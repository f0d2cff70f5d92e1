"""What an ONNX file says of its tensors, and what `model.yaml` may therefore leave out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.model_file import load_model_definition
from batcher.config.onnx_axes import axes_of_rows
from batcher.config.onnx_file import Dim, read_onnx
from batcher.errors import ConfigError
from tests.support.graphs import graph_bytes, node, value

onnx = pytest.importorskip("onnx")


def written(folder: Path, content: bytes, yaml: str = "") -> Path:
    (folder / "net.onnx").write_bytes(content)
    (folder / "model.yaml").write_text(f"format: onnx\nfile: net.onnx\n{yaml}\n")
    return folder


def text_and_scores(*more: object) -> bytes:
    """Return a graph of text and numbers in, scores out; `more` are further inputs."""
    return graph_bytes(
        [node("Identity", ["x"], ["y"])],
        [value("text", "BYTES", "batch"), value("x", "FP64", None, 3, "width"), *more],
        [value("y", "FP64", None, 3, "width"), value("total", "FP32")],
    )


def test_names_datatypes_and_shapes_are_those_of_the_graph(tmp_path: Path) -> None:
    definition = load_model_definition("m", "1", written(tmp_path, text_and_scores()))
    spec = definition.spec
    assert [(t.name, t.describe()) for t in (*spec.inputs, *spec.outputs)] == [
        ("text", "BYTES[-1]"),
        ("x", "FP64[-1,3,-1]"),
        ("y", "FP64[-1,3,-1]"),
    ]


def test_what_stands_in_model_yaml_goes_before_the_graph(tmp_path: Path) -> None:
    yaml = "inputs: [{name: x, shape: [3, 8]}, {name: text}]\noutputs: [{name: y, dtype: FP32}]"
    spec = load_model_definition("m", "1", written(tmp_path, text_and_scores(), yaml)).spec
    assert [(t.name, t.describe()) for t in (*spec.inputs, *spec.outputs)] == [
        ("x", "FP64[-1,3,8]"),
        ("text", "BYTES[-1]"),
        ("y", "FP32[-1,3,-1]"),
    ]


def test_inputs_that_have_a_value_need_none_from_clients(tmp_path: Path) -> None:
    bias = onnx.numpy_helper.from_array(np.zeros(1, "f4"), "bias")
    content = graph_bytes(
        [node("Add", ["x", "bias"], ["y"])],
        [value("x", "FP32", "n", 1), value("bias", "FP32", 1)],
        [value("y", "FP32", "n", 1)],
        [bias],
    )
    definition = load_model_definition("m", "1", written(tmp_path, content))
    assert [tensor.name for tensor in definition.spec.inputs] == ["x"]
    assert [tensor.name for tensor in read_onnx(definition.file).defaults] == ["bias"]


@pytest.mark.parametrize("extra", [value("scales", "FP32", 3), value("rate", "INT64")])
def test_an_input_without_an_axis_for_rows_is_asked_for(tmp_path: Path, extra: object) -> None:
    folder = written(tmp_path, text_and_scores(extra))
    with pytest.raises(
        ConfigError, match=r"model.yaml: inputs: .*`constants: \{(scales|rate): …\}`"
    ):
        load_model_definition("m", "1", folder)
    name = extra.name  # type: ignore[attr-defined]  # a message of protocol buffers
    folder = written(tmp_path, text_and_scores(extra), f"constants: {{{name}: 1}}")
    assert len(load_model_definition("m", "1", folder).spec.inputs) == 2


def test_outputs_that_all_lack_an_axis_for_rows_are_named(tmp_path: Path) -> None:
    content = graph_bytes(
        [node("ReduceSum", ["x"], ["total"], keepdims=0)],
        [value("x", "FP32", "batch", 3)],
        [value("total", "FP32")],
    )
    with pytest.raises(ConfigError, match=r"axis for the rows of a batch; .* 'total' FP32\[\]"):
        load_model_definition("m", "1", written(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(50), b"\x3a\x05"])
def test_a_file_that_is_no_graph_is_told_where_it_would_have_to_say_more(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(ConfigError, match=r"model.yaml:2: file: expected an ONNX file"):
        load_model_definition("m", "1", written(tmp_path, content))


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("inputs: [{name: z}]", r"model.yaml:3: inputs: .* the graph, 'text' BYTES.*; got 'z'"),
        ("outputs: [{name: o, graph_name: w}]", r"outputs: .* the graph, 'y' FP64.*; got 'w'"),
    ],
)
def test_a_name_that_the_graph_lacks_is_told_with_those_that_it_has(
    tmp_path: Path, yaml: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=f"{words}.* write `graph_name`"):
        load_model_definition("m", "1", written(tmp_path, text_and_scores(), yaml))


def test_a_graph_that_is_not_there_is_told_with_the_files_that_are(tmp_path: Path) -> None:
    folder = written(tmp_path, text_and_scores())
    (folder / "model.yaml").write_text("format: onnx\nfile: nett.onnx\n")
    with pytest.raises(ConfigError, match=r"model.yaml:2: file: .* write `file: net.onnx`"):
        load_model_definition("m", "1", folder)


def test_places_in_a_graph_belong_to_format_onnx_alone(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(
        "format: python\nclass: a:B\nconstants: {x: 1}\n"
        "inputs: [{name: x, dtype: FP32, shape: []}]\noutputs: [{name: y, dtype: FP32, shape: []}]"
    )
    with pytest.raises(ConfigError, match="with format onnx alone"):
        load_model_definition("m", "1", tmp_path)


@given(st.integers(0, 400), st.binary(max_size=40))
def test_no_damaged_file_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    content = text_and_scores()
    file = tmp_path_factory.getbasetemp() / "damaged.onnx"
    file.write_bytes(content[:place] + damage + content[place + len(damage) :])
    with suppress(ValueError):
        read_onnx(file, nodes=True)


@pytest.mark.parametrize("kind", ["Identity", "Dropout", "BatchNormalization", "Constant", "If"])
def test_a_node_without_inputs_and_outputs_is_read_past(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "bare.onnx"
    file.write_bytes(graph_bytes([node(kind, [], [])], [], []))
    assert read_onnx(file, nodes=True).training == []


@pytest.mark.parametrize(
    ("shape", "row", "axes"),
    [
        (("batch", 3), (3,), [0]),
        ((None, None), (5,), [0, 1]),
        (("seq", "batch", 8), (-1, 8), [1]),
        ((2, None, 128), (2, 128), [1, 0]),
        ((16, 1, 64), (16, 64), [1]),
        (("seq", 1, 64), (1, 64), [0]),
        (("batch", 2), (3,), []),
        ((None, 2), (3,), []),
        (("batch", 3), (-1,), []),
        (("batch", 3), (), []),
    ],
)
def test_the_rows_lie_along_an_axis_without_which_the_shape_is_that_of_a_row(
    shape: tuple[Dim, ...], row: tuple[int, ...], axes: list[int]
) -> None:
    assert axes_of_rows(shape, row) == axes


def test_an_axis_of_a_fixed_size_counts_no_rows_beside_inputs_of_any_number(tmp_path: Path) -> None:
    content = graph_bytes(
        [node("Identity", ["state"], ["next"])],
        [value("x", "FP32", None, 8), value("state", "FP32", 2, None, 4)],
        [value("next", "FP32", None, None, None)],
    )
    spec = load_model_definition("m", "1", written(tmp_path, content)).spec
    assert [tensor.shape for tensor in spec.inputs] == [(8,), (2, 4)]
