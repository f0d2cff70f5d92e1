"""A model's methods are plain functions; others are refused by name when the model is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.hook_contract import run_postprocess, run_preprocess
from tests.support.model_folders import Folders, floats
from tests.support.models import model_spec

PREDICT = "def predict(self, inputs):\n        return {'y': inputs['x']}"
DECORATED = """
def awaited_by_nobody(function):
    return lambda *arguments: function(*arguments)

class Model:
    @awaited_by_nobody
    async def predict(self, inputs):
        return {"y": inputs["x"]}
"""


def run(checked: CheckedModel) -> object:
    inputs = floats()
    return checked.predict(lambda allocate: {"x": inputs}, len(inputs))


def python_class(*methods: str) -> str:
    return "class Model:\n" + "\n".join(f"    {method}" for method in methods)


@pytest.mark.parametrize("warmup", [True, False], ids=["warmed up", "cold"])
@pytest.mark.parametrize(
    ("source", "name", "kind"),
    [
        (python_class(f"async {PREDICT}"), "Model.predict", "coroutine function"),
        (python_class("async def load(self, device):\n        pass", PREDICT), "load", "coroutine"),
        (
            python_class("async def preprocess(self, inputs):\n        return inputs", PREDICT),
            "Model.preprocess",
            "coroutine function",
        ),
        (
            python_class(PREDICT, "async def postprocess(self, outputs):\n        return outputs"),
            "Model.postprocess",
            "coroutine function",
        ),
        (python_class("def predict(self, inputs):\n        yield 1"), "predict", "generator"),
        (python_class("async def predict(self, inputs):\n        yield 1"), "predict", "async gen"),
        (
            "class Model(torch.nn.Module):\n    async def forward(self, x):\n        return x",
            "Model.forward",
            "coroutine function",
        ),
    ],
    ids=["predict", "load", "preprocess", "postprocess", "generator", "async generator", "forward"],
)
def test_a_method_that_somebody_would_have_to_await_is_refused_at_load_by_its_name(
    folders: Folders, source: str, name: str, kind: str, warmup: bool
) -> None:
    with pytest.raises(ModelLoadError, match=f"{name}: expected a plain function; got an? {kind}"):
        folders.load(folders.python(source), warmup=warmup)


@pytest.mark.filterwarnings("error")
def test_what_a_decorator_hides_is_refused_by_what_it_returns(folders: Folders) -> None:
    with pytest.raises(ModelLoadError, match="got a coroutine, and nobody awaits it"):
        folders.load(folders.python(DECORATED))
    checked = folders.load(folders.python(DECORATED), warmup=False)
    with pytest.raises(ModelContractError, match="got a coroutine, and nobody awaits it"):
        run(checked)


@pytest.mark.filterwarnings("error")
def test_a_hook_that_returns_a_coroutine_is_named() -> None:
    async def later(values: Any) -> Any:
        return values

    inputs = {"x": floats(), "y": floats()}
    with pytest.raises(ModelContractError, match=r"preprocess: .*got a coroutine"):
        run_preprocess(lambda values: later(values), inputs, model_spec())
    with pytest.raises(ModelContractError, match=r"postprocess: .*got a coroutine"):
        run_postprocess(lambda values: later(values), inputs, model_spec(), 1)
