"""`preprocess_on: device`: a hook that gets whole batches of tensors, where the module runs."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.errors import ModelContractError
from batcher.models.checked import CheckedModel
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers

BYTES = "[{name: picture, dtype: UINT8, shape: [4]}]"
PICTURES = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
MODEL = """
SEEN = []

class Model(torch.nn.Module):
    def preprocess(self, inputs):
        picture = inputs["picture"]
        SEEN.append((type(picture).__name__, str(picture.dtype), tuple(picture.shape)))
        return {made}

    def forward(self, scaled):
        return scaled * 2
"""
SCALED = '{"scaled": picture.float() / 255}'


def load(folders: Folders, made: str = SCALED, **settings: object) -> CheckedModel:
    """Load a model whose hook returns what the expression `made` makes."""
    definition = folders.python(MODEL.replace("{made}", made), inputs=BYTES)
    return folders.load(definition, **{"preprocess_on": "device", **settings})


def test_a_hook_on_the_device_gets_whole_batches_and_the_pool_has_none(folders: Folders) -> None:
    checked = load(folders)
    assert checked.loaded().preprocess is None
    found = answers(checked, picture=PICTURES)["y"]
    np.testing.assert_allclose(found, PICTURES / np.float32(255) * 2, rtol=1e-6)
    seen = checked.model.make().forward.__func__.__globals__["SEEN"]  # type: ignore[attr-defined]
    assert seen[-1] == ("Tensor", "torch.uint8", (3, 4))


def test_a_hook_on_the_cpu_stays_in_the_pool(folders: Folders) -> None:
    hooked = load(folders, '{"scaled": picture / np.float32(255)}', preprocess_on="cpu")
    assert hooked.loaded().preprocess is not None


def test_what_the_hook_makes_has_the_numbers_of_the_module(folders: Folders) -> None:
    found = answers(load(folders, dtype="bf16"), picture=PICTURES)["y"]
    assert found.dtype == np.dtype("<f4")
    assert not (found.view("<u4") & 0xFFFF).any()  # the values of BF16 have their last 16 bits 0


def test_a_graph_has_the_hook_in_it(folders: Folders, gpu: FakeGpu) -> None:
    source = MODEL.replace("{made}", SCALED).replace("SEEN.append", "id")
    definition = folders.python(source, inputs=BYTES)
    checked = folders.load(definition, preprocess_on="device", cuda_graphs=True)
    gpu.events.clear()
    found = answers(checked, picture=PICTURES)["y"]
    assert gpu.events[0].startswith("replay")
    np.testing.assert_allclose(found, PICTURES / np.float32(255) * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "got"),
    [
        ('{"scaled": picture.float()[:1]}', "'scaled' of shape .1, 4."),
        ('{"scaled": [1.0] * len(picture)}', "'scaled', of class list"),
        ("picture.float()", "got Tensor"),
    ],
    ids=["fewer rows", "a list", "no names"],
)
def test_a_hook_that_makes_something_else_is_refused(folders: Folders, made: str, got: str) -> None:
    checked = load(folders, made, warmup=False)
    with pytest.raises(ModelContractError, match=f"expected tensors of 3 rows .*{got}"):
        answers(checked, picture=PICTURES)


def test_native_code_has_no_hook(folders: Folders) -> None:
    load(folders, compile="aoti")
    assert any("not compiled: a module with preprocess" in step for step in folders.progress)


@pytest.mark.cuda
def test_on_cuda_the_hook_runs_there(folders: Folders) -> None:
    made = '{"scaled": picture.float() / 255 if picture.is_cuda else picture.float()}'
    found = answers(load(folders, made, device="cuda:0"), picture=PICTURES)["y"]
    np.testing.assert_allclose(found, PICTURES / np.float32(255) * 2, rtol=1e-5)
