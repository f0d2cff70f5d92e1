"""A model that does not run on its first rows: the error says where, and what helps there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from batcher.config.single_file import SingleFile
from batcher.errors import ConfigError
from batcher.models.describing.python_file import describe_class
from tests.models.describing.test_describing import definition

HEAD = "import batcher\nimport numpy as np\nimport torch\n\n\n"
MODULE = "@batcher.model(inputs={'x': 'UINT8[3,8,8]'})\nclass Net(torch.nn.Module):\n"
CLASS = "@batcher.model(inputs={'x': 'FP32[4]'})\nclass Net:\n"
LAYERS = (
    "    def __init__(self):\n        super().__init__()\n"
    "        self.layers = torch.nn.Conv2d(3, 4, 3)\n\n"
)
FAILURES = [
    (
        MODULE + LAYERS + "    def forward(self, x):\n        return self.layers(x)\n",
        r"got in `forward`: RuntimeError: .*net\.py:13\). 'x' comes as UINT8, and PyTorch's layers "
        r"take floats: begin `forward` with `x = x\.float\(\)`",
    ),
    (
        MODULE + "    def forward(self, x):\n        return x.mean((1, 2, 3))\n",
        r"got in `forward`: RuntimeError: .*: begin `forward` with `x = x\.float\(\)`",
    ),
    (
        MODULE + "    def preprocess(self, x):\n        return {'x': x.float() / 255}\n\n"
        "    def forward(self, x):\n        return x.mean((1, 2, 3))\n",
        r"got in `preprocess`: AttributeError: .*net\.py:9\)\. `preprocess` gets the inputs of one "
        r"request, a mapping of name to NumPy array whose first axis is the row, and returns",
    ),
    (
        MODULE + LAYERS + "    def forward(self, x):\n        return self.no_layers(x.float())\n",
        r"got in `forward`: AttributeError: .* If the model takes other inputs, say so: --input ",
    ),
    (
        CLASS + "    def predict(self, inputs):\n        return inputs.sum(1)\n",
        r"got in `predict`: AttributeError: .* `predict` gets a batch: a mapping of name to array",
    ),
    (
        CLASS + "    def predict(self, inputs):\n        return {'y': inputs['x']}\n\n"
        "    def postprocess(self, outputs):\n        return {'y': outputs.sum(1)}\n",
        r"got in `postprocess`: AttributeError: .*\. `postprocess` gets the outputs of one request",
    ),
    (
        CLASS + "    def predict(self, inputs):\n        inputs['x'].sum(1)\n",
        r"got in `predict`: .*expected outputs; got None: return a dict such as {'output': …}$",
    ),
]


@pytest.mark.parametrize(("source", "words"), FAILURES)
def test_the_error_names_the_function_and_what_helps_there(
    tmp_path: Path, source: str, words: str
) -> None:
    file = tmp_path / "net.py"
    file.write_text(HEAD + source)
    with pytest.raises(ConfigError) as caught:
        definition(SingleFile(file))
    assert re.search(words, str(caught.value)), caught.value


def test_a_class_may_say_that_preprocess_makes_rows_of_unequal_lengths(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        HEAD + "@batcher.model(\n    inputs={'text': 'BYTES'},\n"
        "    prepared={'ids': {'dtype': 'INT64', 'shape': [-1], 'pad': -1}},\n)\nclass Net:\n"
        "    sample = {'text': ['a', 'bcd']}\n\n"
        "    def preprocess(self, inputs):\n"
        "        return {'ids': [np.array(list(text), np.int64) for text in inputs['text']]}\n\n"
        "    def predict(self, inputs):\n"
        "        return {'letters': (inputs['ids'] >= 0).sum(axis=1)}\n"
    )
    spec = definition(SingleFile(file)).spec
    assert [each.describe() for each in spec.outputs] == ["INT64[-1]"]
    assert [(each.name, each.pad) for each in spec.prepared] == [("ids", -1)]


def test_a_program_is_told_the_argument_and_not_a_decorator_of_pytorchs_own_class(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as caught:
        describe_class(torch.nn.Linear, "Linear", SingleFile(tmp_path / "net.py"), in_program=True)
    assert 'batcher.serve(…, inputs={"input": "FP32[4]"})' in str(caught.value)
    assert "class Linear" not in str(caught.value)
