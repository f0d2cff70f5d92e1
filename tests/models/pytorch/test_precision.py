"""`dtype`, `autocast` and `channels_last`: what a module computes in, and what its clients see."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.models.pytorch.aoti_packages import package_key
from batcher.models.pytorch.precision import InPrecision
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers, floats

NETWORK = """
SEEN = []

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = torch.nn.Linear(4, 4)

    def forward(self, x):
        y = self.net(x)
        SEEN.append((x.dtype, self.net.weight.dtype, y.dtype))
        return y
"""
PICTURES = "[{{name: {}, dtype: FP32, shape: [3, 4, 5]}}]"
CONVOLUTION = """
SEEN = []

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        SEEN.extend((x.is_contiguous(memory_format=torch.channels_last),
            self.net.weight.is_contiguous(memory_format=torch.channels_last)))
        return self.net(x)
"""


def seen(checked: Any) -> list[Any]:
    """Return what the code of a model has noted."""
    made = checked.model.make()
    return list(type(made).forward.__globals__["SEEN"])


def archived(kind: str) -> bytes:
    """Return a network as an archive of a format."""
    module, file = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()).eval(), io.BytesIO()
    example = torch.zeros(2, 4)
    if kind == "torchscript":
        torch.jit.save(torch.jit.trace(module, example), file)
    else:
        axes = ({0: torch.export.Dim.DYNAMIC},)
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=axes), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        ({"dtype": "bf16"}, (torch.bfloat16,) * 3),
        ({"dtype": "fp16"}, (torch.float16,) * 3),
        (
            {"dtype": "bf16", "autocast": True},
            (torch.float32, torch.float32, torch.bfloat16),
        ),
    ],
    ids=["bf16", "fp16", "autocast"],
)
def test_a_module_computes_in_its_dtype_and_clients_see_what_is_declared(
    folders: Folders, settings: dict[str, Any], inside: tuple[torch.dtype, ...]
) -> None:
    definition = folders.python(NETWORK)
    expected = answers(folders.load(definition), x=floats())["y"]
    checked = folders.load(definition, **settings)
    found = answers(checked, x=floats())["y"]
    assert seen(checked)[-1] == inside
    assert found.dtype == np.dtype("<f4")
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=5e-2, atol=5e-2)


def test_weights_are_cast_in_the_stream_of_the_batches_which_so_come_after_it(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, to = set(), torch.nn.Module.to

    def noted(module: torch.nn.Module, *args: Any, **more: Any) -> torch.nn.Module:
        streams.add(gpu.current.name)
        return to(module, *args, **more)

    monkeypatch.setattr(torch.nn.Module, "to", noted)
    folders.load(folders.python(NETWORK), dtype="bf16")
    assert streams == {"stream 1"}


@pytest.mark.parametrize("kind", ["export", "torchscript"])
def test_archives_compute_in_their_dtype_too(folders: Folders, kind: str) -> None:
    definition = folders.define(f"format: {kind}\nfile: net.pt2", {"net.pt2": archived(kind)})
    expected = answers(folders.load(definition), x=floats())["y"]
    found = answers(folders.load(definition, dtype="bf16"), x=floats())["y"]
    assert found.dtype == np.dtype("<f4")
    # the values of BF16 have their last 16 bits 0
    assert not (found.view("<u4") & 0xFFFF).any()
    np.testing.assert_allclose(found, expected, rtol=5e-2, atol=5e-2)


def test_what_a_hook_makes_is_cast_and_what_a_hook_gets_is_fp32(folders: Folders) -> None:
    hooks = """
    def preprocess(self, inputs):
        return {"x": inputs["x"] * 2}

    def postprocess(self, outputs):
        (array,) = outputs.values()
        return {"y": array if array.dtype == np.float32 else array * np.nan}
"""
    checked = folders.load(folders.python(NETWORK + hooks), dtype="bf16")
    found = answers(checked, x=floats())
    assert seen(checked)[-1] == (torch.bfloat16,) * 3
    assert {array.dtype for array in found.values()} == {np.dtype("<f4")}


def test_whole_numbers_are_not_cast(folders: Folders) -> None:
    source = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(300, 4)

    def forward(self, x):
        return self.table(x), x
"""
    definition = folders.python(
        source,
        inputs="[{name: x, dtype: INT64, shape: []}]",
        outputs="[{name: y, dtype: FP32, shape: [4]}, {name: z, dtype: INT64, shape: []}]",
    )
    found = answers(folders.load(definition, dtype="bf16"), x=np.array([257, 3]))
    assert found["z"].tolist() == [257, 3]  # BF16 has no 257


def test_outputs_declared_in_the_dtype_stay_in_it(folders: Folders) -> None:
    outputs = "[{name: y, dtype: BF16, shape: [4]}]"
    checked = folders.load(folders.python(NETWORK, outputs=outputs), dtype="bf16")
    assert answers(checked, x=floats())["y"].dtype == np.dtype("<u2")


def test_pictures_and_convolutions_have_their_channels_last(folders: Folders) -> None:
    shapes = {"inputs": PICTURES.format("x"), "outputs": PICTURES.format("y")}
    definition = folders.python(CONVOLUTION.replace("padding=1", "padding=1, bias=False"), **shapes)
    checked = folders.load(definition, channels_last=True)
    pictures = np.ones((2, 3, 4, 5), "<f4")
    found = answers(checked, x=pictures)["y"]
    assert seen(checked)
    assert all(seen(checked))
    assert found.shape == pictures.shape


def test_a_module_without_these_settings_has_nothing_in_front_of_it(folders: Folders) -> None:
    plain: Any = folders.load(folders.python(NETWORK)).model
    wrapped: Any = folders.load(folders.python(NETWORK), dtype="fp32").model
    is_wrapped = [isinstance(each._module, InPrecision) for each in (plain, wrapped)]
    assert is_wrapped == [False, True]


def test_a_model_that_is_no_module_says_so_and_runs(folders: Folders) -> None:
    source = "class Model:\n    def predict(self, inputs):\n        return inputs['x']\n"
    checked = folders.load(folders.python(source), dtype="bf16", channels_last=True)
    assert answers(checked, x=floats())["y"].tolist() == floats().tolist()
    assert (
        "note: expected a module of PyTorch for dtype, channels_last; got a class with predict, "
        "which runs as it is"
    ) in folders.progress


@pytest.mark.parametrize(
    "other", [{"dtype": "bf16"}, {"dtype": "bf16", "autocast": True}, {"channels_last": True}]
)
def test_packages_of_other_numbers_are_other_packages(
    folders: Folders, other: dict[str, Any]
) -> None:
    definition: ModelDefinition = folders.python(NETWORK)
    key: Callable[..., str] = lambda **settings: package_key(  # noqa: E731  # three equal calls
        definition, ModelSettings(**settings), torch.device("cpu")
    )
    assert key() == key()
    assert key(**other) != key()
