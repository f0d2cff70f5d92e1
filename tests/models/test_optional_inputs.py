"""Optional inputs in `model.yaml`, and how models of each format get a batch without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from batcher.errors import ConfigError, ModelLoadError
from tests.support.graphs import graph_bytes, node, onnx_model, value
from tests.support.model_folders import Folders, answers

ONE = "name: {}, dtype: FP32, shape: [1]"
INPUTS = f"[{{{ONE.format('x')}}}, {{{ONE.format('bias')}, optional: true}}]"
OUTPUTS = f"[{{{ONE.format('y')}}}]"
X = np.array([[1], [2]], "<f4")


def module(signature: str, body: str) -> str:
    head = f"class Model(torch.nn.Module):\n    def forward(self, {signature}):\n"
    return f"{head}        return {body}\n"


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("x, bias=None", "x if bias is None else x + bias"),
        ("x, bias=1.0", "x + bias - (1.0 if isinstance(bias, float) else 0.0)"),
        ("x, *, other=None, bias=None", "x if bias is None else x + bias"),
        ("bias=None, x=None", "x if bias is None else x + bias"),
        ("a, b=None", "a if b is None else a + b"),
    ],
)
def test_a_module_gets_nothing_for_an_input_that_is_left_out(
    folders: Folders, signature: str, body: str
) -> None:
    checked = folders.load(folders.python(module(signature, body), inputs=INPUTS, outputs=OUTPUTS))
    assert answers(checked, x=X)["y"].tolist() == X.tolist()
    assert answers(checked, x=X, bias=X)["y"].tolist() == (2 * X).tolist()


TWO = f"{INPUTS[:-1]}, {{{ONE.format('scale')}, optional: true}}]"


def test_a_module_has_its_own_default_before_an_input_that_is_sent(folders: Folders) -> None:
    source = module("x, scale=2.0, bias=None", "x * scale if bias is None else x * scale + bias")
    checked = folders.load(folders.python(source, inputs=TWO, outputs=OUTPUTS))
    assert answers(checked, x=X, bias=X)["y"].tolist() == (3 * X).tolist()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (module("x, bias", "x + bias"), r"default for it in forward\(x, bias\).* `bias=None`"),
        (module("a, b", "a + b"), r"default for it in forward\(a, b\), .* `b=None` there"),
        (
            "class Model:\n    def predict(self, x, bias):\n        return {'y': x + bias}\n",
            "default for it in Model.predict",
        ),
    ],
)
def test_code_that_needs_an_optional_input_is_refused_at_load(
    folders: Folders, source: str, told: str
) -> None:
    definition = folders.python(source, inputs=INPUTS, outputs=OUTPUTS)
    with pytest.raises(ModelLoadError, match=f"input 'bias': expected a {told}"):
        folders.load(definition, warmup=False)


MAPPING = """
from batcher.errors import InvalidInput


class Model:
    {}

    def predict(self, inputs):
        return {{"y": {}}}
"""


@pytest.mark.parametrize(
    ("hook", "result", "told"),
    [
        ("", "inputs['x'] + inputs['bias'] + inputs.get('scale', 0)", "KeyError: 'bias'"),
        (
            "def preprocess(self, inputs):\n        return {'x': inputs['x'] - inputs['bias']}",
            "inputs['x']",
            "KeyError: 'bias'",
        ),
        ("sample = {'x': [[1]], 'bias': [[2]]}", "inputs['x'] + inputs['bias']", "KeyError"),
        ("", "inputs['bias']", "KeyError: 'bias'"),
        ("", "inputs.get('bias')", "ModelContractError: .*got None"),
    ],
)
def test_warm_up_shows_that_a_class_needs_an_optional_input(
    folders: Folders, hook: str, result: str, told: str
) -> None:
    definition = folders.python(MAPPING.format(hook, result), inputs=TWO, outputs=OUTPUTS)
    with pytest.raises(
        ModelLoadError, match=f"input 'bias': expected a model that runs without an.*got {told}"
    ):
        folders.load(definition)


def test_a_class_that_needs_one_of_two_inputs_is_served_with_a_note(folders: Folders) -> None:
    result = "inputs['bias'] if 'bias' in inputs else inputs['scale']"
    folders.load(folders.python(MAPPING.format("", result), inputs=TWO, outputs=OUTPUTS))
    (note,) = [text for text in folders.progress if text.startswith("note: ")]
    assert "none of the inputs 'bias', 'scale' fail: KeyError: 'scale'." in note


def test_a_class_may_refuse_a_request_by_itself(folders: Folders) -> None:
    hook = (
        "def preprocess(self, inputs):\n"
        "        if 'bias' not in inputs:\n"
        "            raise InvalidInput('bias or x twice')\n"
        "        return inputs"
    )
    folders.load(
        folders.python(MAPPING.format(hook, "inputs['bias']"), inputs=TWO, outputs=OUTPUTS)
    )
    assert not any("skipped" in text for text in folders.progress)


def test_an_optional_input_without_sizes_is_named_where_the_first_batch_fails(
    folders: Folders,
) -> None:
    inputs = f"[{{{ONE.format('x')}}}, {{name: mask, dtype: FP32, shape: [-1], optional: true}}]"
    source = MAPPING.format("", "inputs['x'] * inputs['mask'].sum()")
    with pytest.raises(
        ModelLoadError, match=r"KeyError: 'mask'; the rows of warm-up lack 'mask', .*`warmup_shape`"
    ):
        folders.load(folders.python(source, inputs=inputs, outputs=OUTPUTS))


@pytest.mark.parametrize(
    ("parameters", "result", "is_told"),
    [
        ("inputs", "inputs['x'] * inputs.get('mask')", True),
        ("inputs", "inputs.get('mask').sum()", True),
        ("inputs", "inputs['masks']", False),
        ("inputs", "inputs['x'] @ np.ones((3, 3))", False),
        ("x, mask=None", "x @ np.ones((3, 3))", False),
        ("x, mask=None", "x * mask", False),
    ],
)
def test_an_error_that_has_to_do_with_no_such_input_stays_as_it_is(
    folders: Folders, parameters: str, result: str, is_told: bool
) -> None:
    inputs = f"[{{{ONE.format('x')}}}, {{name: mask, dtype: FP32, shape: [-1], optional: true}}]"
    source = (
        f"class Model:\n    def predict(self, {parameters}):\n        return {{'y': {result}}}\n"
    )
    with pytest.raises(ModelLoadError) as caught:
        folders.load(folders.python(source, inputs=inputs, outputs=OUTPUTS))
    assert ("the rows of warm-up lack 'mask'" in str(caught.value)) is is_told


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_module_does_too(folders: Folders, tmp_path: Any) -> None:
    definition = folders.python(
        module("x, bias=None", "x if bias is None else x + bias"), inputs=INPUTS, outputs=OUTPUTS
    )

    class Plus(torch.nn.Module):
        def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            return x if bias is None else x + bias

    class Needs(torch.nn.Module):
        def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            return x if bias is None else x + bias

    torch.jit.script(Plus()).save(definition.folder / "net.pt")
    text = f"format: torchscript\nfile: net.pt\ninputs: {INPUTS}\noutputs: {OUTPUTS}\n"
    checked = folders.load(folders.write(text))
    assert answers(checked, x=X)["y"].tolist() == X.tolist()
    assert answers(checked, x=X, bias=X)["y"].tolist() == (2 * X).tolist()
    torch.jit.script(Needs()).save(definition.folder / "net.pt")
    with pytest.raises(ModelLoadError, match=r"'bias': expected a default for it in forward\(x, b"):
        folders.load(folders.write(text))


def test_a_class_finds_no_such_name(folders: Folders) -> None:
    source = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] + inputs.get("bias", 10)}
"""
    checked = folders.load(folders.python(source, inputs=INPUTS, outputs=OUTPUTS))
    assert answers(checked, x=X)["y"].tolist() == [[11], [12]]


def test_a_graph_takes_the_value_that_it_has_itself(folders: Folders) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    nodes = [node("Add", ["x", "bias"], ["y"])]
    inputs = [value("x", "FP32", "n", 1), value("bias", "FP32", "n", 1)]
    outputs = [value("y", "FP32", "n", 1)]
    bias = onnx.numpy_helper.from_array(np.array([[10]], "f4"), "bias")
    yaml = f"inputs: {INPUTS}\noutputs: {OUTPUTS}"
    checked = folders.load(onnx_model(folders, graph_bytes(nodes, inputs, outputs, [bias]), yaml))
    assert answers(checked, x=X)["y"].tolist() == [[11], [12]]
    assert answers(checked, x=X, bias=X)["y"].tolist() == (2 * X).tolist()
    without = onnx_model(folders, graph_bytes(nodes, inputs, outputs), yaml)
    with pytest.raises(ModelLoadError, match="input 'bias': expected a `default`"):
        folders.load(without)


def test_compiled_code_and_exports_need_a_default(folders: Folders) -> None:
    definition = folders.python(
        module("x, bias=None", "x if bias is None else x + bias"), inputs=INPUTS, outputs=OUTPUTS
    )
    folders.load(definition, compile="aoti")
    assert any("compiled code takes all inputs" in text for text in folders.progress)
    (definition.folder / "net.pt2").write_bytes(b"")
    text = f"format: export\nfile: net.pt2\ninputs: {INPUTS}\noutputs: {OUTPUTS}\n"
    with pytest.raises(ModelLoadError, match="an exported program takes all inputs"):
        folders.load(folders.write(text))


@pytest.mark.parametrize(
    ("rest", "row"),
    [
        ("dtype: FP32, shape: [], default: 0.5", 0.5),
        ("dtype: INT64, shape: [2], default: 3", [3, 3]),
        ("dtype: FP64, shape: [-1], default: [1, 2, 3]", [1, 2, 3]),
        ("dtype: BOOL, shape: [], default: true", True),
        ("dtype: BYTES, shape: [1], default: ä", ["ä".encode()]),
        ("dtype: BF16, shape: [], default: 1", 0x3F80),
        ("dtype: FP32, shape: [], optional: true, default: 0", 0),
    ],
)
def test_a_default_is_one_row(folders: Folders, rest: str, row: Any) -> None:
    inputs = f"[{{{ONE.format('x')}}}, {{name: z, {rest}}}]"
    spec = folders.define("format: python\nclass: a:B", inputs=inputs).spec
    default = spec.inputs[1].default
    assert default is not None
    assert default.tolist() == row
    assert [tensor.name for tensor in spec.required] == ["x"]


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("dtype: FP32, shape: [], default: high", "a default of FP32"),
        ("dtype: INT64, shape: [], default: 1.5", "a default of INT64"),
        ("dtype: UINT8, shape: [], default: 300", "a default of UINT8"),
        ("dtype: INT64, shape: [], default: true", "a default of INT64"),
        ("dtype: BOOL, shape: [], default: 1", "a default of BOOL"),
        ("dtype: BYTES, shape: [], default: 1", "a default of BYTES"),
        ("dtype: FP32, shape: [2], default: [1, 2, 3]", r"a default of shape \[2\]"),
        ("dtype: FP32, shape: [-1], default: 1", r"a default of shape \[-1\]"),
    ],
)
def test_a_default_of_another_kind_is_refused(folders: Folders, rest: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"model.yaml:3: inputs.1: expected {told}"):
        folders.define(
            "format: python\nclass: a:B", inputs=f"[{{{ONE.format('x')}}}, {{name: z, {rest}}}]"
        )


def test_some_input_must_be_in_every_request(folders: Folders) -> None:
    inputs = TWO.replace(ONE.format("x"), f"{ONE.format('x')}, default: 1")
    with pytest.raises(
        ConfigError, match=r"without `optional` and `default`.* beside x, bias, scale, which"
    ):
        folders.define("format: python\nclass: a:B", inputs=inputs)


def test_warm_up_needs_no_sizes_of_what_may_be_left_out(folders: Folders) -> None:
    source = """
class Model:
    def predict(self, inputs):
        assert "extra" not in inputs
        return {"y": inputs["x"]}
"""
    extra = "{name: extra, dtype: FP32, shape: [-1], optional: true}"
    folders.load(
        folders.python(source, inputs=f"[{{{ONE.format('x')}}}, {extra}]", outputs=OUTPUTS)
    )
    assert not any("skipped" in text for text in folders.progress)
