"""What a SavedModel says of itself is taken from it; what it does not say is asked for."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.saved_model.signatures import FILE, MAX_FIELDS, MAX_TENSORS, read_saved_model
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.repository.folders import find_models, find_versions
from batcher.serving.repository.source import source_of
from tests.support.saved_models import PLAIN, X, Y, field, graph, saved_model, signature


def defined(folder: Path, content: bytes, yaml: str | None = None) -> ModelDefinition:
    """Return the definition of a version that is, or holds, a SavedModel of that `content`."""
    home = folder / "1" if yaml is None else folder / "1" / "net"
    home.mkdir(parents=True)
    (home / FILE).write_bytes(content)
    if yaml is not None:
        (folder / "1" / "model.yaml").write_text(f"format: savedmodel\n{yaml}\n")
    return load_model_definition("m", "1", folder / "1")


def shown(definition: ModelDefinition) -> list[str]:
    spec = definition.spec
    return [
        f"{each.name} {each.datatype.name}{list(each.shape)}"
        for each in (*spec.inputs, *spec.outputs)
    ]


def test_a_folder_as_tensorflow_serving_has_it_needs_no_model_yaml(tmp_path: Path) -> None:
    inputs = {"text": ("BYTES", (-1,)), "ids": ("INT64", (-1, -1))}
    outputs = {"scores": ("FP32", (-1, 3)), "loss": ("FP32", ()), "names": ("BYTES", (3,))}
    content = saved_model({"serving_default": signature(inputs, outputs), "other": b""})
    definition = defined(tmp_path / "m", content)
    assert shown(definition) == ["ids INT64[-1]", "text BYTES[]", "scores FP32[3]"]
    assert (definition.entry, definition.file) == ("serving_default", tmp_path / "m" / "1")
    (found,) = find_models(ServerSettings(model_repository="."), tmp_path).folders
    assert (found.name, found.version) == ("m", "1")
    for folder in (tmp_path / "m", tmp_path / "m" / "1"):
        assert find_versions(folder, ServerSettings(), tmp_path) == [found]


def test_other_variables_are_another_source(tmp_path: Path) -> None:
    defined(tmp_path / "m", PLAIN)
    variables = tmp_path / "m" / "1" / "variables"
    variables.mkdir()
    (variables / "variables.index").write_bytes(b"old")
    (found,) = find_models(ServerSettings(model_repository="."), tmp_path).folders
    before = source_of(found, ServerSettings(), {})
    (variables / "variables.index").write_bytes(b"new")
    assert source_of(found, ServerSettings(), {}, before) != before


def test_the_folder_beside_a_model_yaml_is_found_and_tensors_can_be_chosen(tmp_path: Path) -> None:
    outputs = {**Y, "z": ("FP32", (-1,))}
    content = saved_model({"a": signature(X, Y), "b": signature(X, outputs)})
    definition = defined(tmp_path, content, "signature: b\noutputs: [{name: z}]")
    assert (shown(definition), definition.entry) == (["x FP32[4]", "z FP32[]"], "b")
    assert definition.file == tmp_path / "1" / "net"


def test_a_lone_signature_is_served_whatever_its_name(tmp_path: Path) -> None:
    content = saved_model({"score": signature(X, Y), "__saved_model_init_op": b""})
    assert defined(tmp_path, content).entry == "score"


REFUSED = {
    "several": (
        saved_model({"a": signature(X, Y), "b": signature(X, Y)}),
        None,
        "1/saved_model.pb: signature: expected the one that is served, of 'a', 'b'; got none: "
        "write `signature: a`",
    ),
    "unknown": (
        PLAIN,
        "signature: other",
        "model.yaml:2: signature: expected one of 'serving_default'; got 'other'",
    ),
    "none": (
        saved_model({}),
        None,
        "signature: expected a SavedModel with signatures; got none: save it with",
    ),
    "scalar": (
        saved_model({"serving_default": signature({**X, "training": ("INT32", ())}, Y)}),
        None,
        "got 'training', INT32[], which has no axis for the rows: fix its value in the function",
    ),
    "fixed rows": (
        saved_model({"serving_default": signature({"x": ("FP32", (8, 4))}, Y)}),
        None,
        "got 'x', FP32[8,4], whose first axis is fixed: save the function with `None` as",
    ),
    "mixed rows": (
        saved_model({"serving_default": signature({**X, "one": ("FP32", (1, 4))}, Y)}),
        None,
        "got 'one', FP32[1,4], whose first axis is fixed",
    ),
    "no datatype": (
        saved_model({"serving_default": signature({"x": ("COMPLEX64", (-1, 4))}, Y)}),
        None,
        "got 'x', no tensor[-1,4], which is sparse, ragged, or of a datatype that is not served",
    ),
    "no rows out": (
        saved_model({"serving_default": signature(X, {"loss": ("FP32", ())})}),
        None,
        "outputs: expected outputs whose first axis counts the rows of a batch; the signature has "
        "'loss' FP32[]",
    ),
    "no shape": (
        saved_model({"serving_default": signature({"x": ("FP32", None)}, Y)}),
        None,
        "inputs: expected the shape of a row of 'x', which the file does not say; got none: list",
    ),
    "other name": (
        PLAIN,
        "inputs: [{name: z}]",
        "model.yaml:2: inputs: expected names of the signature, 'x'; got 'z'",
    ),
    "other dtype": (
        PLAIN,
        "inputs: [{name: x, dtype: int64}]",
        "model.yaml:2: dtype: expected the one of the signature, FP32; got int64",
    ),
    "left out": (
        saved_model({"serving_default": signature({**X, "z": ("FP32", (-1,))}, Y)}),
        "inputs: [{name: x}, {name: z, optional: true}]",
        "model.yaml:2: inputs: expected every input of the signature, and a `default` for each "
        "that is optional; got none for 'z'",
    ),
    "no file": (
        PLAIN,
        "file: nothing",
        "model.yaml:2: file: expected a folder beside it that holds saved_model.pb, with variables "
        "beside that; got 'nothing', which holds none",
    ),
    "no graph": (
        b"",
        None,
        "got 1/saved_model.pb: expected one graph with the tag serve; got none",
    ),
    "two graphs": (
        field(2, graph({}, "train")) + field(2, graph({}, "gpu", "tpu")),
        None,
        "expected one graph with the tag serve; got train; gpu, tpu",
    ),
    "truncated": (PLAIN[:-5], None, "got 1/saved_model.pb: expected a field within its message"),
    "no protocol buffers": (b"<html>", None, "file: expected a SavedModel, as tf.saved_model.save"),
    "too many": (
        saved_model({"a": field(1, field(1, "x")) * (MAX_TENSORS + 1)}),
        None,
        f"expected at most {MAX_TENSORS} inputs and outputs; got more",
    ),
    "more fields than anybody writes": (
        field(2, b"") * (MAX_FIELDS + 1),
        None,
        f"expected at most {MAX_FIELDS} fields beside the graph; got more",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_what_to_write(tmp_path: Path, name: str) -> None:
    content, yaml, words = REFUSED[name]
    with pytest.raises(ConfigError, match=re.escape(words)):
        defined(tmp_path, content, yaml)


def test_of_an_unknown_shape_model_yaml_says_it(tmp_path: Path) -> None:
    content = saved_model({"serving_default": signature({"x": ("FP32", None)}, Y)})
    yaml = "inputs: [{name: x, shape: [2, 2]}]"
    assert shown(defined(tmp_path, content, yaml)) == ["x FP32[2, 2]", "y FP32[3]"]


def test_a_signature_belongs_to_this_format_alone(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(
        "format: pmml\nfile: m.pmml\nsignature: a\ninputs: [{name: x, dtype: FP32, shape: []}]\n"
        "outputs: [{name: y, dtype: FP32, shape: []}]\n"
    )
    with pytest.raises(ConfigError, match="`signature` with format savedmodel alone"):
        load_model_definition("m", "1", tmp_path)


@given(st.binary(max_size=200), st.integers(0, len(PLAIN)), st.integers(0, 20))
def test_other_bytes_are_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, other: bytes, place: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzzed") / FILE
    path.write_bytes(PLAIN[:place] + other + PLAIN[place + cut :])
    with suppress(ValueError):
        read_saved_model(path)


def test_a_folder_below_tritons_file_is_served_by_the_signature_that_it_names(
    tmp_path: Path,
) -> None:
    home = tmp_path / "net" / "1" / "model.savedmodel"
    home.mkdir(parents=True)
    (home / FILE).write_bytes(saved_model({"a": signature(X, Y), "b": signature(X, Y)}))
    (tmp_path / "net" / "config.pbtxt").write_text(
        'platform: "tensorflow_savedmodel"\nmax_batch_size: 8\n'
        'parameters { key: "TF_SIGNATURE_DEF" value: { string_value: "b" } }\n'
    )
    definition = load_model_definition("net", "1", home.parent)
    assert (shown(definition), definition.entry) == (["x FP32[4]", "y FP32[3]"], "b")
    assert definition.file == home
