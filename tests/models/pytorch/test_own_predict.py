"""`predict` of an object may come from anywhere: what counts is the object once it is loaded."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from batcher.errors import ModelLoadError
from batcher.models.pytorch import python_class
from tests.support.model_folders import Folders, answers, floats

WAYS = {
    "a property": """
    @property
    def predict(self):
        return double
""",
    "a property that needs what load sets": """
    def load(self, device):
        self.function = double

    @property
    def predict(self):
        return self.function
""",
    "an attribute of the object": """
    def __init__(self):
        self.predict = double
""",
    "an attribute that load sets": """
    def load(self, device):
        self.predict = double
""",
    "an attribute that load replaces": """
    predict = None

    def load(self, device):
        self.predict = double
""",
    "a method that load replaces": """
    def predict(self, values):
        raise RuntimeError("not loaded")

    def load(self, device):
        self.predict = double
""",
    "an object within": """
    def __getattr__(self, name):
        if name != "predict":
            raise AttributeError(name)
        return double
""",
}
DOUBLE = "def double(values):\n    return {'y': values['x'] * 2}\n\n"


@pytest.mark.parametrize("way", WAYS)
def test_predict_is_what_the_object_has_once_it_is_loaded(folders: Folders, way: str) -> None:
    loaded = folders.load(folders.python(f"{DOUBLE}class Model:{WAYS[way]}"))
    np.testing.assert_array_equal(answers(loaded, x=floats())["y"], floats() * 2)


def test_an_object_with_predict_that_a_function_returns_needs_no_class(folders: Folders) -> None:
    source = f"{DOUBLE}import types\nmake = lambda: types.SimpleNamespace(predict=double)\n"
    loaded = folders.load(folders.python(source, "code:make"))
    np.testing.assert_array_equal(answers(loaded, x=floats())["y"], floats() * 2)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("    other = 1\n", "a class with predict, or a function that returns .*; got the class"),
        (
            "    def load(self, device): ...\n",
            "`predict` once the model is loaded.* none$",
        ),
        ("    predict = 1\n", "a method `predict` once.*; got an object of class int$"),
        (
            "    def load(self): ...\n    def predict(self, values): ...\n",
            r"Model.load: expected one argument, the device, as in `def load\(self, device\)`; got "
            r"load\(\)$",
        ),
        ("    @property\n    def predict(self):\n        raise KeyError('weights')\n", "'weights'"),
        (
            "    @property\n    def predict(self):\n        return self.net\n",
            r"AttributeError: .* no attribute 'net' \(.*code.py:7\)",
        ),
    ],
    ids=[
        "nothing",
        "nothing after load",
        "a number",
        "load without device",
        "an error",
        "no attribute",
    ],
)
def test_an_object_that_cannot_be_called_is_refused_with_the_reason(
    folders: Folders, body: str, complaint: str
) -> None:
    with pytest.raises(ModelLoadError, match=complaint):
        folders.load(folders.python(f"class Model:\n{body}"))


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cuda = True
    device = torch.device("cuda:1")


def test_answers_wait_for_the_stream_that_copies_them_and_for_no_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[torch.device] = []

    def current_stream(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(synchronize=lambda: waits.append(device))

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    values = [torch.zeros(1).as_subclass(OnGpu) for _ in range(2)]
    python_class._wait_for_copies([*values, torch.zeros(1), "text"])
    assert waits == [torch.device("cuda:1")]
