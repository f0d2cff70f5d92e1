"""The same small model in every format, loaded through `load_model`, gives the same answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.loading import load_model
from batcher.models.pytorch.module import choose_device
from tests.support.model_folders import Folders, answers, floats

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models/digits/1"
WEIGHT = np.array([[1, 0, 2, -1], [0.5, 1, 0, 3]], "<f4")
BIAS = np.array([0.25, -1], "<f4")
OUTPUTS = "[{name: y, dtype: FP32, shape: [2]}]"
NETWORK = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x)
"""
PREDICT = f"""
class Model:
    def predict(self, inputs):
        weight = np.array({WEIGHT.tolist()}, "f4")
        return {{"y": inputs["x"] @ weight.T + np.array({BIAS.tolist()}, "f4")}}
"""


def test_a_graph_without_onnxruntime_names_the_extra(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model", "session"):
        monkeypatch.delitem(sys.modules, f"batcher.models.onnx.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    inputs = "[{name: x, dtype: FP32, shape: [4]}]"
    definition = folders.write(
        f"format: onnx\nfile: net.onnx\ninputs: {inputs}\noutputs: {OUTPUTS}\n", {"net.onnx": b""}
    )
    advice = r"expected the extra onnx; got none.*`pip install 'batcher-inference\[onnx\]'`"
    with pytest.raises(ModelLoadError, match=advice):
        folders.load(definition)


def test_a_library_that_a_class_imports_is_missed_at_the_line_of_the_class(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    source = "class Model:\n    def load(self, device):\n        import lightgbm\n"
    with pytest.raises(ModelLoadError, match=r"1: ModuleNotFoundError: .*lightgbm.*code.py:6\)"):
        folders.load(folders.python(source))


def network() -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.Linear(4, 2))
    module[0].load_state_dict({"weight": torch.from_numpy(WEIGHT), "bias": torch.from_numpy(BIAS)})
    return module.eval()


def python_module(folders: Folders) -> ModelDefinition:
    weights = save({"layer.weight": torch.from_numpy(WEIGHT), "layer.bias": torch.from_numpy(BIAS)})
    return folders.python(
        NETWORK, head="\nweights: w.safetensors", files={"w.safetensors": weights}, outputs=OUTPUTS
    )


def python_predict(folders: Folders) -> ModelDefinition:
    return folders.python(PREDICT, outputs=OUTPUTS)


def torchscript(folders: Folders) -> ModelDefinition:
    file = BytesIO()
    torch.jit.save(torch.jit.trace(network(), torch.zeros(2, 4)), file)
    return folders.define(
        "format: torchscript\nfile: net.pt", {"net.pt": file.getvalue()}, outputs=OUTPUTS
    )


def exported(folders: Folders) -> ModelDefinition:
    rows = torch.export.Dim("rows", min=1, max=1024)
    file = BytesIO()
    torch.export.save(
        torch.export.export(network(), (torch.zeros(2, 4),), dynamic_shapes=({0: rows},)), file
    )
    return folders.define(
        "format: export\nfile: net.pt2", {"net.pt2": file.getvalue()}, outputs=OUTPUTS
    )


def onnx_graph(folders: Folders) -> ModelDefinition:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    tensors = [
        helper.make_tensor_value_info(name, 1, ["rows", width])
        for name, width in (("x", 4), ("y", 2))
    ]
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    weights = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")]
    graph = helper.make_graph([node], "affine", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return folders.define(
        "format: onnx\nfile: net.onnx", {"net.onnx": model.SerializeToString()}, outputs=OUTPUTS
    )


every_format = pytest.mark.parametrize(
    "make", [python_module, python_predict, torchscript, exported, onnx_graph]
)
Make = Callable[[Folders], ModelDefinition]


@every_format
def test_every_format_gives_the_same_answers_at_every_batch_size(
    folders: Folders, make: Make
) -> None:
    checked = folders.load(make(folders))
    for rows in (1, 2, 3, 64):
        found = answers(checked, x=floats(rows))["y"]
        assert found.dtype == np.dtype("<f4")
        np.testing.assert_allclose(found, floats(rows) @ WEIGHT.T + BIAS, rtol=1e-5)


@every_format
def test_every_format_is_warmed_up_at_one_row_the_largest_batch_and_the_powers_of_two_between(
    folders: Folders, make: Make
) -> None:
    folders.load(make(folders), max_batch_size=5)
    sizes = [
        text.removeprefix("warming up, batch size ")
        for text in folders.progress
        if "warming up" in text
    ]
    assert sorted(set(map(int, sizes))) == [1, 2, 4, 5]


@every_format
def test_every_format_gives_buffers_that_can_be_written(folders: Folders, make: Make) -> None:
    model = folders.load(make(folders)).model
    buffer = model.allocate("x", (2, 4), np.dtype("<f4"))
    buffer[...] = 1
    assert (buffer.shape, buffer.dtype, buffer.flags.c_contiguous) == (
        (2, 4),
        np.dtype("<f4"),
        True,
    )
    assert not np.shares_memory(buffer, model.allocate("x", (2, 4), np.dtype("<f4")))


@pytest.mark.parametrize("fmt", ["torchscript", "export", "onnx"])
@pytest.mark.parametrize(
    "content", [b"", b"no model at all", bytes(100), b"PK\x05\x06" + bytes(18)]
)
def test_a_file_that_is_no_model_is_refused_with_the_models_name(
    folders: Folders, fmt: str, content: bytes
) -> None:
    if fmt == "onnx":
        pytest.importorskip("onnxruntime")
    definition = folders.define(f"format: {fmt}\nfile: net.pt2", {"net.pt2": content})
    with pytest.raises(ModelLoadError, match=r"^model 'm' version 1: "):
        folders.load(definition)


def test_an_onnx_model_whose_names_are_not_those_of_the_graph_is_refused(folders: Folders) -> None:
    definition = onnx_graph(folders)
    wrong = folders.define(
        "format: onnx\nfile: net.onnx", outputs="[{name: z, dtype: FP32, shape: [2]}]"
    )
    assert definition.file == wrong.file
    with pytest.raises(ModelLoadError, match="z"):
        folders.load(wrong)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_an_onnx_model_that_must_run_on_cuda_does_not_silently_run_on_the_cpu(
    folders: Folders,
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("this onnxruntime runs on CUDA")
    with pytest.raises(ModelLoadError, match=r"(?i)cuda"):
        folders.load(onnx_graph(folders), device="cuda:0")


def digits(fmt: str, folders: Folders) -> ModelDefinition:
    if fmt == "export":
        return load_model_definition("digits", "1", DIGITS)
    source = (DIGITS / "network.py").read_text()
    inputs = "[{name: image, dtype: FP32, shape: [1, 8, 8]}]"
    outputs = "[{name: scores, dtype: FP32, shape: [10]}]"
    head = "format: python\nclass: network:DigitsNet\nweights: model.safetensors"
    files: dict[str, str | bytes] = {
        "network.py": source,
        "model.safetensors": (DIGITS / "model.safetensors").read_bytes(),
    }
    python = folders.define(head, files, inputs, outputs, name="digits")
    if fmt == "python":
        return python
    # to trace the very same network
    module = folders.load(python).model._module  # type: ignore[attr-defined]
    file = BytesIO()
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, 1, 8, 8)), file)
    return folders.define(
        "format: torchscript\nfile: net.pt",
        {"net.pt": file.getvalue()},
        inputs,
        outputs,
        name="traced",
    )


@pytest.mark.parametrize("fmt", ["python", "export", "torchscript"])
def test_the_digits_model_reads_the_scans_that_it_never_saw(folders: Folders, fmt: str) -> None:
    with np.load(ROOT / "examples/digits/heldout.npz") as heldout:
        images, labels = heldout["images"], heldout["labels"]
    scores = answers(folders.load(digits(fmt, folders)), image=images)["scores"]
    assert (scores.argmax(axis=1) == labels).mean() >= 0.98
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_weights_of_the_digits_model_are_those_of_its_exported_program(
    folders: Folders,
) -> None:
    image: Array = np.random.default_rng(0).random((5, 1, 8, 8), "f4")
    found = [
        answers(folders.load(digits(fmt, folders)), image=image)["scores"]
        for fmt in ("python", "export")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert set(load_file(DIGITS / "model.safetensors")) >= {"digit.weight", "digit.bias"}


@pytest.mark.parametrize(
    ("wanted", "chosen"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3")]
)
def test_a_named_device_is_the_one_that_is_used(wanted: str, chosen: str) -> None:
    assert choose_device(wanted) == chosen


def test_auto_is_cuda_where_there_is_one() -> None:
    assert choose_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_an_error_that_names_it(folders: Folders) -> None:
    with pytest.raises(ModelLoadError, match=r"model 'm' version 1: device: .* got 'cuda:7'"):
        load_model(python_module(folders), ModelSettings(device="cuda:7"), folders.progress.append)


def test_the_settings_decide_how_many_threads_an_operator_uses(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    folders.load(python_module(folders))
    assert asked == []
    folders.load(python_module(folders), torch_threads=3)
    folders.load(python_predict(folders), torch_threads=2)
    assert asked == [3, 2]


def test_a_module_without_forward_is_refused_by_name(folders: Folders) -> None:
    source = "class Model(torch.nn.Module):\n    def predict(self, inputs):\n        return 1\n"
    with pytest.raises(ModelLoadError, match=r"Model: expected a method `forward`.*`predict`"):
        folders.load(folders.python(source))
