"""`class:` may name a function that makes the model."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.errors import ModelLoadError
from tests.support.model_folders import Folders, answers, floats

DOUBLING = """
class Double(torch.nn.Module):
    def preprocess(self, values):
        return values

    def forward(self, x):
        return x * 2
"""


def test_a_function_may_return_a_module(folders: Folders) -> None:
    definition = folders.python(DOUBLING + "def make():\n    return Double()\n", "code:make")
    np.testing.assert_array_equal(answers(folders.load(definition), x=floats())["y"], floats() * 2)


def test_a_function_may_return_an_object_with_predict(folders: Folders) -> None:
    source = (
        "class Double:\n    def predict(self, values):\n        return {'y': values['x'] * 2}\n\n"
        "def make():\n    return Double()\n"
    )
    loaded = folders.load(folders.python(source, "code:make"))
    np.testing.assert_array_equal(answers(loaded, x=floats())["y"], floats() * 2)


def test_a_function_of_an_installed_library_is_found(folders: Folders) -> None:
    definition = folders.define("format: python\nclass: torch.nn.modules.linear:Identity")
    np.testing.assert_array_equal(answers(folders.load(definition), x=floats())["y"], floats())


def test_a_partial_function_may_make_the_model(folders: Folders) -> None:
    source = "import functools\nmake = functools.partial(torch.nn.Linear, 4, 4)\n"
    assert answers(folders.load(folders.python(source, "code:make")), x=floats())["y"].shape == (
        3,
        4,
    )


MADE_BY_PYTORCH = {
    "compiled": "torch.compile(Net(), backend='eager', fullgraph=True)",
    "exported": "torch.export.export(Net(), EXAMPLE, dynamic_shapes=ANY_ROWS).module()",
}


@pytest.mark.parametrize("made", MADE_BY_PYTORCH)
def test_a_function_may_return_what_pytorch_has_compiled_or_exported(
    folders: Folders, made: str
) -> None:
    source = f"""
EXAMPLE = (torch.zeros(2, 4), torch.zeros(2, 4))
ANY_ROWS = ({{0: torch.export.Dim("rows", max=64)}},) * 2

class Net(torch.nn.Module):
    def forward(self, a, b):
        return a - b

def make():
    return {MADE_BY_PYTORCH[made]}
"""
    inputs = "[{name: b, dtype: FP32, shape: [4]}, {name: a, dtype: FP32, shape: [4]}]"
    loaded = folders.load(folders.python(source, "code:make", inputs=inputs))
    found = answers(loaded, a=floats() * 3, b=floats())["y"]
    np.testing.assert_array_equal(found, floats() * 2)


def test_a_function_runs_once_for_each_load(folders: Folders) -> None:
    source = (
        DOUBLING
        + """
def make():
    with open(__file__ + ".calls", "a") as calls:
        calls.write("1")
    return Double()
"""
    )
    definition = folders.python(source, "code:make")
    folders.load(definition)
    assert (definition.folder / "code.py.calls").read_text() == "1"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "def make(size):\n    return torch.nn.Linear(size, size)\n",
            r"class code:make: expected a class or function that needs no arguments; got "
            r"make\(size\)\. Give each argument a default, or write a function without arguments",
        ),
        ("def make():\n    return None\n", "got a function that returns NoneType$"),
        (
            "def make():\n    return torch.nn.Linear\n",
            "got a function that returns the class Linear$",
        ),
        ("async def make():\n    return 1\n", "got a function that returns coroutine$"),
        (
            "make = torch.nn.Linear(4, 4)\n",
            "got a model that is made already. Write a function that returns the model$",
        ),
    ],
    ids=["arguments", "nothing", "a class", "a coroutine", "a module"],
)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_what_makes_no_model_is_refused_with_the_mend(
    folders: Folders, source: str, complaint: str
) -> None:
    with pytest.raises(ModelLoadError, match=complaint):
        folders.load(folders.python(source, "code:make"))
