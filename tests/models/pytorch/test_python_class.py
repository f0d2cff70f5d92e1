"""Format `python`: classes from files beside `model.yaml`, or from installed modules."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from batcher.errors import ModelLoadError
from tests.support.model_folders import Folders, answers, floats

DOUBLE = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""
LINEAR = """
class Model(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
"""


def test_any_class_with_predict_is_a_model(folders: Folders) -> None:
    np.testing.assert_array_equal(
        answers(folders.load(folders.python(DOUBLE)), x=floats())["y"], floats() * 2
    )


def test_an_object_is_told_its_device_before_it_is_run(folders: Folders) -> None:
    source = """
class Model:
    def load(self, device):
        self.device = device

    def predict(self, inputs):
        assert self.device == "cpu"
        return {"y": inputs["x"]}
"""
    model: Any = folders.load(folders.python(source)).model
    assert model._model.device == "cpu", "the object itself"


@pytest.mark.parametrize(
    "result",
    [
        '{"y": x * 2}',
        '{"y": torch.from_numpy(x) * 2}',
        '{"y": x * 2, "more": np.zeros(len(x))}',
        "x * 2",
        "[x * 2]",
        "(torch.from_numpy(x) * 2,)",
        '{"y": (x * 2).tolist() and torch.tensor((x * 2).tolist())}',
        '{"y": torch.nn.Parameter(torch.from_numpy(x) * 2)}',
        '{"y": np.asfortranarray(x * 2)}',
    ],
)
def test_an_answer_may_be_arrays_or_tensors_by_name_or_in_order(
    folders: Folders, result: str
) -> None:
    source = (
        'class Model:\n    def predict(self, inputs):\n        x = inputs["x"]\n        return '
        f"{result}\n"
    )
    found = answers(folders.load(folders.python(source)), x=floats())["y"]
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, floats() * 2)


def test_hooks_of_an_object_are_kept_for_the_pool(folders: Folders) -> None:
    hooks = "".join(
        f"\n    def {name}(self, values):\n        return values\n"
        for name in ("preprocess", "postprocess")
    )
    model = folders.load(folders.python(DOUBLE + hooks)).model
    assert model.preprocess is not None
    assert model.postprocess is not None
    plain = folders.load(folders.python(DOUBLE, name="plain")).model
    assert (plain.preprocess, plain.postprocess) == (None, None)


def test_a_module_is_run_in_evaluation_and_without_gradients(folders: Folders) -> None:
    source = """
class Model(torch.nn.Module):
    def forward(self, x):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        return x
"""
    np.testing.assert_array_equal(
        answers(folders.load(folders.python(source)), x=floats())["y"], floats()
    )


def test_the_inputs_of_a_module_go_to_the_parameters_of_their_names(folders: Folders) -> None:
    source = (
        "class Model(torch.nn.Module):\n    def forward(self, a, b):\n        return a - b, a + b\n"
    )
    definition = folders.python(
        source,
        inputs="[{name: b, dtype: FP32, shape: []}, {name: a, dtype: FP32, shape: []}]",
        outputs="[{name: first, dtype: FP32, shape: []}, {name: second, dtype: FP32, shape: []}]",
    )
    found = answers(folders.load(definition), a=np.array([1], "<f4"), b=np.array([10], "<f4"))
    assert (found["first"].tolist(), found["second"].tolist()) == ([-9], [11])


def test_bf16_goes_in_and_out_of_a_module_as_16_bit_integers(folders: Folders) -> None:
    source = """
class Model(torch.nn.Module):
    def forward(self, x):
        assert x.dtype == torch.bfloat16
        return x * 2
"""
    tensors = "[{{name: {}, dtype: BF16, shape: [2]}}]"
    checked = folders.load(
        folders.python(source, inputs=tensors.format("x"), outputs=tensors.format("y"))
    )
    found = answers(checked, x=np.array([[0x3F80, 0xC000]], "<u2"))["y"]
    assert found.dtype == np.dtype("<u2")
    assert found.tolist() == [[0x4000, 0xC080]]


def test_a_class_may_stand_in_a_package(folders: Folders) -> None:
    definition = folders.python(
        "", "nets.small:Model", files={"nets/__init__.py": "", "nets/small.py": DOUBLE}
    )
    np.testing.assert_array_equal(answers(folders.load(definition), x=floats())["y"], floats() * 2)


def test_a_class_may_stand_in_an_installed_module(folders: Folders) -> None:
    definition = folders.define("format: python\nclass: torch.nn:Identity")
    np.testing.assert_array_equal(answers(folders.load(definition), x=floats())["y"], floats())


@pytest.mark.parametrize(
    ("source", "entry", "complaint"),
    [
        (
            DOUBLE,
            "code:Modle",
            "returns a model of either kind; got nothing of that name; there is 'Model'",
        ),
        (
            "Model = 5",
            "code:Model",
            "returns a model of either kind; got an object of class int",
        ),
        (
            "class Model:\n    pass",
            "code:Model",
            "expected a torch.nn.Module or a class with predict",
        ),
        ("", "nowhere:Model", "ModuleNotFoundError: .*nowhere"),
        ("", "json.decoder:Model", "expected a file json/decoder.py beside model.yaml"),
        ("raise RuntimeError('no licence')", "code:Model", "RuntimeError: no licence"),
        ("def f(:", "code:Model", "SyntaxError"),
        ("from .nowhere import x", "code:Model", "ModuleNotFoundError"),
        (
            "class Model:\n    def __init__(self, size):\n        self.predict = 1\n    predict = "
            "len",
            "code:Model",
            r"expected a class or function that needs no arguments; got Model\(size\)",
        ),
        (
            DOUBLE + "\n    def load(self, device):\n        raise OSError('disk')\n",
            "code:Model",
            "OSError: disk",
        ),
        ("import sys\nsys.exit('no licence')", "code:Model", "SystemExit: no licence"),
        (
            DOUBLE + "\n    def load(self, device):\n        raise SystemExit(3)\n",
            "code:Model",
            "SystemExit: 3",
        ),
        (
            "class Model:\n    def predict(self, inputs):\n        raise SystemExit(4)\n",
            "code:Model",
            "batch size 1.*SystemExit: 4",
        ),
    ],
)
def test_a_model_that_cannot_be_made_is_refused_with_its_name_and_the_reason(
    folders: Folders, source: str, entry: str, complaint: str
) -> None:
    with pytest.raises(ModelLoadError, match=f"^model 'm' version 1: .*{complaint}"):
        folders.load(folders.python(source, entry))


def test_a_model_that_failed_once_can_be_loaded_when_it_is_mended(folders: Folders) -> None:
    with pytest.raises(ModelLoadError):
        folders.load(folders.python("raise RuntimeError('no licence')"))
    np.testing.assert_array_equal(
        answers(folders.load(folders.python(DOUBLE)), x=floats())["y"], floats() * 2
    )


def test_weights_are_given_to_the_module(folders: Folders) -> None:
    weights = save({"weight": torch.eye(4) * 3, "bias": torch.ones(4)})
    definition = folders.python(
        LINEAR, head="\nweights: w.safetensors", files={"w.safetensors": weights}
    )
    np.testing.assert_allclose(answers(folders.load(definition), x=floats())["y"], floats() * 3 + 1)


def test_a_module_that_was_made_without_memory_takes_its_weights_in_its_own_dtype(
    folders: Folders,
) -> None:
    made = "Linear(4, 4, device='meta')"
    source = f"def make():\n    return torch.nn.{made}\n"
    weights = save({"weight": torch.eye(4).half() * 3, "bias": torch.ones(4).half()})
    definition = folders.python(
        source, "code:make", head="\nweights: w.safetensors", files={"w.safetensors": weights}
    )
    np.testing.assert_allclose(answers(folders.load(definition), x=floats())["y"], floats() * 3 + 1)
    with pytest.raises(
        ModelLoadError, match=r"parameters with values; got 'weight', 'bias' .* as `weights` in"
    ):
        folders.load(folders.python(source, "code:make"))


def test_tensors_without_values_in_a_class_are_named_with_the_mend(folders: Folders) -> None:
    source = """
class Model:
    def load(self, device):
        self.net = torch.nn.Linear(4, 4, device="meta")

    def predict(self, inputs):
        return self.net(torch.from_numpy(inputs["x"]))
"""
    with pytest.raises(ModelLoadError, match=r"device meta, .*have no values: load the weights"):
        folders.load(folders.python(source))


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (save({"weight": torch.eye(4)}), 'Missing key.*"bias"'),
        (save({"weight": torch.eye(5), "bias": torch.ones(4)}), "size mismatch for weight"),
        (
            save({"weight": torch.eye(4), "bias": torch.ones(4), "extra": torch.ones(1)}),
            'Unexpected key.*"extra"',
        ),
        (b"no weights", "Error"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_reason(
    folders: Folders, weights: bytes, complaint: str
) -> None:
    definition = folders.python(
        LINEAR, head="\nweights: w.safetensors", files={"w.safetensors": weights}
    )
    with pytest.raises(ModelLoadError, match=f"(?s)^model 'm' version 1: .*{complaint}"):
        folders.load(definition)


class Writes:
    """A pickle of this opens a file for writing when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.pth", "w.pkl", "w.SafeTensors.pt"])
def test_pickled_weights_are_refused_and_not_read(
    folders: Folders, tmp_path: Path, name: str
) -> None:
    file, ran = BytesIO(), tmp_path / "ran"
    torch.save({"weight": Writes(ran), "bias": torch.ones(4)}, file)
    definition = folders.python(LINEAR, head=f"\nweights: {name}", files={name: file.getvalue()})
    with pytest.raises(
        ModelLoadError,
        match=r"(?s)expected weights as \.safetensors; got .*pickle.*`trusted: true`",
    ):
        folders.load(definition)
    assert not ran.exists()


def test_a_pickle_that_calls_itself_safetensors_is_refused_and_not_run(
    folders: Folders, tmp_path: Path
) -> None:
    file, ran = BytesIO(), tmp_path / "ran"
    torch.save({"weight": Writes(ran)}, file)
    definition = folders.python(
        LINEAR, head="\nweights: w.safetensors", files={"w.safetensors": file.getvalue()}
    )
    with pytest.raises(ModelLoadError):
        folders.load(definition, trusted=True)
    assert not ran.exists()


def test_pickled_weights_of_a_trusted_model_are_read(folders: Folders) -> None:
    file = BytesIO()
    torch.save({"weight": torch.eye(4) * 3, "bias": torch.ones(4)}, file)
    definition = folders.python(LINEAR, head="\nweights: w.pt", files={"w.pt": file.getvalue()})
    np.testing.assert_allclose(
        answers(folders.load(definition, trusted=True), x=floats())["y"], floats() * 3 + 1
    )


@pytest.mark.parametrize(
    ("saved", "got"),
    [
        (torch.nn.Linear(4, 4), "got Linear"),
        ({"state_dict": {"weight": torch.ones(4)}, "epoch": 3}, "got a mapping in 'state_dict'"),
    ],
    ids=["a module", "a checkpoint"],
)
def test_a_file_that_holds_more_than_weights_is_refused_with_what_to_save(
    folders: Folders, saved: object, got: str
) -> None:
    file = BytesIO()
    torch.save(saved, file)
    definition = folders.python(LINEAR, head="\nweights: w.pt", files={"w.pt": file.getvalue()})
    with pytest.raises(ModelLoadError, match=rf"torch.save\(module.state_dict\(\).*; {got}"):
        folders.load(definition, trusted=True)


def test_of_a_load_that_fails_with_much_to_say_the_beginning_and_the_end_are_told(
    folders: Folders,
) -> None:
    source = """
class Model:
    def predict(self, inputs):
        pass

    def load(self, device):
        raise ValueError("long" * 1_000_000)
"""
    with pytest.raises(ModelLoadError, match="ValueError: long") as raised:
        folders.load(folders.python(source))
    assert len(str(raised.value)) < 5000


def test_a_class_is_told_that_it_gets_the_bits_of_bf16(folders: Folders) -> None:
    source = "class Model:\n    def predict(self, inputs):\n        return inputs['x']\n"
    tensors = "[{{name: {}, dtype: BF16, shape: [4]}}]"
    folders.load(folders.python(source, inputs=tensors.format("x"), outputs=tensors.format("y")))
    (note,) = [line for line in folders.progress if line.startswith("note: ")]
    assert "get 'x' as the bits, uint16" in note
