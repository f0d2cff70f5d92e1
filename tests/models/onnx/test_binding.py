"""Tensors of the specification find theirs in the graph, or the load says what differs."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.errors import ConfigError, ModelContractError, ModelLoadError
from tests.support.graphs import graph_bytes, node, onnx_model, value
from tests.support.model_folders import Folders, answers, floats

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAIR = "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]"


def doubled(*shape: object, name: str = "y") -> bytes:
    """Return a graph of `y` = 2 * `x`, both of `shape`."""
    x, y = value("x", "FP32", *shape), value(name, "FP32", *shape)
    return graph_bytes([node("Add", ["x", "x"], [name])], [x], [y])


def test_a_graph_says_all_of_its_tensors_itself(folders: Folders) -> None:
    checked = folders.load(onnx_model(folders, doubled("batch", 4)))
    assert [tensor.describe() for tensor in checked.spec.inputs] == ["FP32[-1,4]"]
    assert answers(checked, x=floats(3))["y"].tolist() == (2 * floats(3)).tolist()


def test_a_name_of_the_graph_may_have_another_name_for_clients(folders: Folders) -> None:
    yaml = "outputs: [{name: scores, graph_name: 'StatefulPartitionedCall:1'}]"
    checked = folders.load(
        onnx_model(folders, doubled("batch", 4, name="StatefulPartitionedCall:1"), yaml)
    )
    assert answers(checked, x=floats(2))["scores"].tolist() == (2 * floats(2)).tolist()


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        (PAIR.replace("name: x", "name: z"), r"'x' FP32\[batch,2\]; got 'z'"),
        (PAIR.replace("name: y", "name: z"), r"'y' FP32\[batch,2\]; got 'z'"),
        (PAIR.replace("FP32, shape: [2]}]\no", "INT64, shape: [2]}]\no"), "dtype FP32.*got INT64"),
        (PAIR.replace("name: y, dtype: FP32", "name: y, dtype: INT64"), "dtype FP32.*got INT64"),
        (PAIR.replace("[2]}]\no", "[3]}]\no"), r"FP32\[batch,2\].*got \[3\]: write `shape: \[2\]`"),
        (PAIR.replace("[2]}]\no", "[-1]}]\no"), r"got \[-1\]: write `shape: \[2\]`"),
        (PAIR.replace("[2]}]\no", "[]}]\no"), r"got \[\]: write `shape: \[2\]`"),
        (PAIR.replace("y, dtype: FP32, shape: [2]", "y, dtype: FP32, shape: [3]"), "FP32"),
        (f"{PAIR}\nconstants: {{z: 1}}", "expected names of inputs of the graph"),
    ],
)
def test_what_model_yaml_says_otherwise_is_told_with_what_the_graph_says(
    folders: Folders, yaml: str, told: str
) -> None:
    with pytest.raises(ModelLoadError, match=told):
        folders.load(onnx_model(folders, doubled("batch", 2), yaml))


def test_a_graph_of_one_row_gets_one_row_at_a_time(folders: Folders) -> None:
    checked = folders.load(onnx_model(folders, doubled(1, 2), PAIR))
    assert checked.loaded().max_rows == 1
    assert any("at most 1 rows" in text for text in folders.progress)
    assert answers(checked, x=floats(1, 2))["y"].tolist() == [[0, 2]]


def test_a_graph_of_a_fixed_number_of_rows_gets_smaller_batches_filled_up(
    folders: Folders,
) -> None:
    total = graph_bytes(
        [node("ReduceSum", ["x"], ["s"], keepdims=1), node("Sub", ["x", "s"], ["y"])],
        [value("x", "FP32", 4, 1)],
        [value("y", "FP32", 4, 1)],
    )
    checked = folders.load(onnx_model(folders, total), max_batch_size=8)
    assert checked.loaded().max_rows == 4
    # 1 + 2 + 2 + 2 are computed for the rows 1 and 2
    assert answers(checked, x=np.array([[1], [2]], "<f4"))["y"].tolist() == [[-6], [-5]]
    assert any("filled up" in text for text in folders.progress)


@pytest.mark.parametrize("shape", [("time", "batch", 2), (3, "n", 2), (3, None, 2)])
def test_rows_may_lie_along_another_axis_than_the_first(
    folders: Folders, shape: tuple[object, ...]
) -> None:
    first = shape[0] if isinstance(shape[0], int) else -1
    yaml = f"inputs: [{{name: x, shape: [{first}, 2], warmup_shape: [3, 2]}}]"
    checked = folders.load(onnx_model(folders, doubled(*shape), yaml))
    rows = np.arange(4 * 3 * 2, dtype="<f4").reshape(4, 3, 2)
    assert answers(checked, x=rows)["y"].tolist() == (2 * rows).tolist()


def test_the_axis_of_the_rows_can_be_named(folders: Folders) -> None:
    yaml = (
        "inputs: [{name: x, batch_axis: 1, warmup_shape: [3, 2]}]\n"
        "outputs: [{name: y, batch_axis: 1}]"
    )
    checked = folders.load(onnx_model(folders, doubled("a", "b", 2), yaml))
    rows = np.arange(4 * 3 * 2, dtype="<f4").reshape(4, 3, 2)
    assert answers(checked, x=rows)["y"].tolist() == (2 * rows).tolist()


def test_an_output_of_unknown_axes_shows_its_rows_in_warm_up(folders: Folders) -> None:
    state = graph_bytes(
        [node("Identity", ["state"], ["next"])],
        [value("state", "FP32", 2, None, 4)],
        [value("next", "FP32", None, None, None)],
    )
    yaml = (
        "inputs: [{name: state, dtype: FP32, shape: [2, 4]}]\n"
        "outputs: [{name: next, dtype: FP32, shape: [2, 4]}]"
    )
    definition = onnx_model(folders, state, yaml)
    rows = np.arange(16, dtype="<f4").reshape(2, 2, 4)
    assert answers(folders.load(definition), state=rows)["next"].tolist() == rows.tolist()
    # two rows of two states: without the warm-up nothing tells which axis is which
    with pytest.raises(ModelContractError, match="batch_axis"):
        answers(folders.load(definition, warmup=False), state=rows)


def test_an_input_without_rows_is_a_constant_or_has_each_row_run_alone(folders: Folders) -> None:
    scaled = graph_bytes(
        [node("Mul", ["x", "scale"], ["y"])],
        [value("x", "FP32", "batch", 2), value("scale", "FP32")],
        [value("y", "FP32", "batch", 2)],
    )
    checked = folders.load(onnx_model(folders, scaled, "constants: {scale: 3}"))
    assert [tensor.name for tensor in checked.spec.inputs] == ["x"]
    assert answers(checked, x=floats(2, 2))["y"].tolist() == (3 * floats(2, 2)).tolist()
    with pytest.raises(ModelLoadError, match=r"'scale' is missing.*`constants: \{scale: …\}`"):
        folders.load(onnx_model(folders, scaled, PAIR))
    alone = PAIR.replace("]\no", ", {name: scale, dtype: FP32, shape: []}]\no")
    checked = folders.load(onnx_model(folders, scaled, alone))
    assert checked.loaded().max_rows == 1
    found = answers(checked, x=floats(1, 2), scale=np.array([5], "<f4"))["y"]
    assert found.tolist() == (5 * floats(1, 2)).tolist()


def test_a_graph_without_any_axis_for_rows_runs_row_by_row(folders: Folders) -> None:
    checked = folders.load(
        onnx_model(folders, doubled("height", 2), PAIR.replace("[2]", "[-1, 2]"))
    )
    rows = floats(3, 2)[np.newaxis]
    assert answers(checked, x=rows)["y"].tolist() == (2 * rows).tolist()


@pytest.mark.parametrize(
    ("constant", "told"),
    [
        ("[1, 2]", r"expected FP32\[3\].*got \[1, 2\] of shape \[2\]"),
        ("high", r"expected FP32\[3\].*got 'high'"),
        ("[[1], [2, 3]]", r"expected FP32\[3\]"),
    ],
)
def test_a_constant_of_another_form_is_refused(folders: Folders, constant: str, told: str) -> None:
    scaled = graph_bytes(
        [node("Mul", ["x", "scales"], ["y"])],
        [value("x", "FP32", "batch", 3), value("scales", "FP32", 3)],
        [value("y", "FP32", "batch", 3)],
    )
    with pytest.raises(ModelLoadError, match=told):
        folders.load(onnx_model(folders, scaled, f"constants: {{scales: {constant}}}"))
    checked = folders.load(onnx_model(folders, scaled, "constants: {scales: [1, 2, 3]}"))
    assert answers(checked, x=floats(1, 3))["y"].tolist() == [[0, 2, 6]]


def test_inputs_of_different_fixed_numbers_of_rows_are_refused(folders: Folders) -> None:
    both = graph_bytes(
        [node("Identity", ["x"], ["y"]), node("Identity", ["z"], ["w"])],
        [value("x", "FP32", 1, 2), value("z", "FP32", 4, 2)],
        [value("y", "FP32", 1, 2), value("w", "FP32", 4, 2)],
    )
    with pytest.raises(ModelLoadError, match="got 1 of 'x', 4 of 'z'"):
        folders.load(onnx_model(folders, both))


def test_an_output_whose_size_the_exporter_got_wrong_is_told_and_served(folders: Folders) -> None:
    content = graph_bytes(
        [node("Add", ["x", "x"], ["y"])], [value("x", "FP32", "n", 2)], [value("y", "FP32", 1, 2)]
    )
    checked = folders.load(onnx_model(folders, content))
    assert answers(checked, x=floats(3, 2))["y"].tolist() == (2 * floats(3, 2)).tolist()


def classifier(keys: dict[str, object]) -> bytes:
    """Return a classifier as scikit-learn's converter writes it, ZipMap included."""
    from onnx import TensorProto, helper

    rows = value("x", "FP32", None, 2)
    kind = TensorProto.STRING if "classlabels_strings" in keys else TensorProto.INT64
    maps = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    probability = helper.make_value_info("probability", helper.make_sequence_type_proto(maps))
    nodes = [node("ZipMap", ["x"], ["probability"], domain="ai.onnx.ml", **keys)]
    return graph_bytes(nodes, [rows], [probability])


@pytest.mark.parametrize(
    "keys", [{"classlabels_int64s": [7, 3]}, {"classlabels_strings": ["dog", "cat"]}]
)
def test_the_maps_of_a_zipmap_are_scores_in_the_order_of_its_classes(
    folders: Folders, keys: dict[str, object]
) -> None:
    checked = folders.load(onnx_model(folders, classifier(keys)))
    assert [tensor.describe() for tensor in checked.spec.outputs] == ["FP32[-1,2]"]
    assert answers(checked, x=floats(3, 2))["probability"].tolist() == floats(3, 2).tolist()
    assert any("zipmap=False" in text for text in folders.progress)


def test_maps_of_another_number_of_classes_are_refused(folders: Folders) -> None:
    yaml = "outputs: [{name: probability, dtype: FP32, shape: [3]}]"
    content = classifier({"classlabels_int64s": [7, 3]})
    with pytest.raises(ModelLoadError, match=r"shape \[2\].*sequence of maps \(ZipMap\)"):
        folders.load(onnx_model(folders, content, yaml))


def test_an_output_that_is_no_tensor_is_named(folders: Folders) -> None:
    from onnx import TensorProto, helper

    tensors = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    pieces = helper.make_value_info("pieces", helper.make_sequence_type_proto(tensors))
    content = graph_bytes(
        [node("SplitToSequence", ["x"], ["pieces"]), node("Identity", ["x"], ["y"])],
        [value("x", "FP32", "n", 2)],
        [pieces, value("y", "FP32", "n", 2)],
    )
    checked = folders.load(onnx_model(folders, content))
    assert answers(checked, x=floats(2, 2)).keys() == {"y"}
    yaml = "outputs: [{name: pieces, dtype: FP32, shape: [2]}]"
    with pytest.raises(ModelLoadError, match=r"'pieces' of the graph is no tensor.*Leave it out"):
        folders.load(onnx_model(folders, content, yaml))


def test_a_graph_that_takes_one_row_in_secret_is_refused_with_the_mend(folders: Folders) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1, 2]), "shape")
    content = graph_bytes(
        [node("Reshape", ["x", "shape"], ["y"])],
        [value("x", "FP32", "batch", 2)],
        [value("y", "FP32", "batch", 2)],
        [shape],
    )
    with pytest.raises(ModelLoadError, match=r"batch size 2 failed.*set max_batch_size to 1\b"):
        folders.load(onnx_model(folders, content))
    checked = folders.load(onnx_model(folders, content), max_batch_size=1)
    assert answers(checked, x=floats(1, 2))["y"].tolist() == [[0, 1]]


def test_an_output_shows_in_warm_up_that_its_rows_lie_along_another_axis(folders: Folders) -> None:
    content = graph_bytes(
        [node("Transpose", ["x"], ["y"], perm=[1, 0, 2])],
        [value("x", "FP32", "n", 3, 2)],
        [value("y", "FP32", None, None, None)],
    )
    checked = folders.load(
        onnx_model(folders, content, "outputs: [{name: y, dtype: FP32, shape: [3, 2]}]")
    )
    rows = np.arange(18, dtype="<f4").reshape(3, 3, 2)
    assert answers(checked, x=rows)["y"].tolist() == rows.tolist()


def test_a_square_output_without_warm_up_has_its_rows_first(folders: Folders) -> None:
    content = graph_bytes(
        [node("Relu", ["x"], ["y"])], [value("x", "FP32", "n", 3)], [value("y", "FP32", None, None)]
    )
    yaml = "outputs: [{name: y, dtype: FP32, shape: [3]}]"
    checked = folders.load(onnx_model(folders, content, yaml), warmup=False)
    assert answers(checked, x=floats(3, 3))["y"].tolist() == floats(3, 3).tolist()
    assert answers(checked, x=floats(2, 3))["y"].tolist() == floats(2, 3).tolist()


def test_the_same_input_of_a_graph_twice_is_refused(folders: Folders) -> None:
    yaml = "inputs: [{name: x}, {name: z, graph_name: x}]"
    with pytest.raises(ModelLoadError, match=r"each input of the graph once.*got 'x' twice"):
        folders.load(onnx_model(folders, doubled("batch", 2), yaml))
    with pytest.raises(ModelLoadError, match=r"each input of the graph once.*got 'x' twice"):
        folders.load(
            onnx_model(folders, doubled("batch", 2), f"{PAIR}\nconstants: {{x: [[1, 2]]}}")
        )


def test_a_graph_of_a_fixed_number_of_rows_must_give_as_many(folders: Folders) -> None:
    content = graph_bytes(
        [node("ReduceSum", ["x"], ["y"], keepdims=1)],
        [value("x", "FP32", 3, 4)],
        [value("y", "FP32", 1, 1)],
    )
    with pytest.raises(ModelLoadError, match=r"takes 3 rows, and gave 1\. If the first axis .*all"):
        folders.load(onnx_model(folders, content), max_batch_size=1)
    yaml = "inputs: [{name: x, shape: [3, 4]}]\noutputs: [{name: y, shape: [1]}]"
    checked = folders.load(onnx_model(folders, content, yaml))
    rows = floats(1, 12).reshape(1, 3, 4)
    assert answers(checked, x=rows)["y"].tolist() == [[66]]


def test_a_graph_of_no_rows_is_refused_with_the_mend(folders: Folders) -> None:
    with pytest.raises(ModelLoadError, match=r"at least 1.*got 0 of 'x'.*with a free axis"):
        folders.load(onnx_model(folders, doubled(0, 2)))


def test_a_graph_without_an_input_that_is_a_tensor_says_what_it_takes(folders: Folders) -> None:
    from onnx import TensorProto, helper

    tensors = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    pieces = helper.make_value_info("pieces", helper.make_sequence_type_proto(tensors))
    content = graph_bytes(
        [node("ConcatFromSequence", ["pieces"], ["y"], axis=0)],
        [pieces],
        [value("y", "FP32", "n", 2)],
    )
    with pytest.raises(ConfigError, match=r"expected tensors .* takes 'pieces' no tensor"):
        onnx_model(folders, content)


def test_a_graph_that_takes_no_blank_rows_is_refused_with_the_mend(folders: Folders) -> None:
    keys = {"cats_strings": ["a", "b"], "zeros": 0}
    content = graph_bytes(
        [node("OneHotEncoder", ["x"], ["y"], domain="ai.onnx.ml", **keys)],
        [value("x", "BYTES", "n")],
        [value("y", "FP32", "n", 2)],
    )
    with pytest.raises(ModelLoadError, match=r"rows of warm-up hold zeros.*as `sample` in model"):
        folders.load(onnx_model(folders, content))
    files = {"net.onnx": content, "rows.json": '{"inputs": {"x": ["b"]}}'}
    checked = folders.load(
        folders.write("format: onnx\nfile: net.onnx\nsample: rows.json\n", files)
    )
    assert answers(checked, x=np.array([b"b", b"a"], object))["y"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("inputs", [("x", "x"), ("x", "z")], ids=["one input", "two inputs"])
@pytest.mark.parametrize("warmup", [True, False])
def test_rows_that_meet_in_an_output_run_alone(
    folders: Folders, inputs: tuple[str, str], warmup: bool
) -> None:
    first, second = inputs
    content = graph_bytes(
        [
            node("Transpose", [second], ["turned"], perm=[1, 0]),
            node("MatMul", [first, "turned"], ["y"]),
        ],
        [value(name, "FP32", f"rows of {name}", 2) for name in sorted(set(inputs))],
        [value("y", "FP32", f"rows of {first}", f"rows of {second}")],
    )
    checked = folders.load(onnx_model(folders, content), warmup=warmup)
    assert checked.largest(4) == 1
    given = dict.fromkeys(inputs, floats(1, 2) + 1)
    assert answers(checked, **given)["y"].tolist() == [[5]]


@pytest.mark.parametrize("shape", [("N", "N"), ("None", 2)], ids=["one name for all", "None"])
def test_a_name_that_stands_for_any_free_axis_tells_nothing_of_rows(
    folders: Folders, shape: tuple[str, object]
) -> None:
    name = shape[0]
    content = graph_bytes(
        [node("Relu", ["x"], ["y"])], [value("x", "FP32", *shape)], [value("y", "FP32", name, name)]
    )
    yaml = "inputs: [{name: x, dtype: FP32, shape: [2]}]"
    checked = folders.load(onnx_model(folders, content, yaml))
    assert checked.largest(4) == 4
    assert answers(checked, x=floats(3, 2))["y"].tolist() == floats(3, 2).tolist()
