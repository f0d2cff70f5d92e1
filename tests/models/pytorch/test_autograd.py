"""`gradients: true`: models that return gradients, such as forces and saliency maps."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch

from batcher.errors import ConfigError, ModelLoadError
from tests.support.model_folders import Folders, answers, floats

FORCES = """
class Model(torch.nn.Module):
    def forward(self, x):
        x = x.requires_grad_(True)
        (forces,) = torch.autograd.grad((x**3).sum(), x)
        return -forces + 0 * x
"""
PREDICTING = """
class Model:
    def predict(self, values):
        x = torch.from_numpy(values["x"]).requires_grad_(True)
        (x**3).sum().backward()
        return {"y": [-row + 0 * x[0] for row in x.grad]}
"""


@pytest.mark.parametrize("source", [FORCES, PREDICTING], ids=["module", "class"])
def test_a_model_may_return_gradients_of_its_inputs(folders: Folders, source: str) -> None:
    definition = folders.python(source, head="\ngradients: true")
    found = answers(folders.load(definition), x=floats())["y"]
    np.testing.assert_allclose(found, -3 * floats() ** 2)


class Forces(torch.nn.Module):
    """The negative gradient of the sum of cubes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return -3 * x ** 2."""
        x = x.detach().requires_grad_(True)
        found = torch.autograd.grad([(x**3).sum()], [x])[0]
        assert found is not None
        return -found


def test_torchscript_may_compute_gradients(folders: Folders) -> None:
    archive = BytesIO()
    torch.jit.save(torch.jit.script(Forces()), archive)
    head = "format: torchscript\nfile: m.pt\ngradients: true"
    definition = folders.define(head, {"m.pt": archive.getvalue()})
    found = answers(folders.load(definition), x=floats())["y"]
    np.testing.assert_allclose(found, -3 * floats() ** 2)


@pytest.mark.parametrize("source", [FORCES, PREDICTING], ids=["module", "class"])
def test_without_the_setting_the_error_names_the_setting(folders: Folders, source: str) -> None:
    with pytest.raises(ModelLoadError, match=r"write `gradients: true` in model\.yaml"):
        folders.load(folders.python(source))


def test_gradients_of_an_onnx_model_are_refused(folders: Folders) -> None:
    head = "format: onnx\nfile: m.onnx\ngradients: true"
    with pytest.raises(ConfigError, match="no `gradients: true` for format onnx"):
        folders.define(head, {"m.onnx": b""})
