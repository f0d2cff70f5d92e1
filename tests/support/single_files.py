"""Models of one file each, of every kind that `batcher serve FILE` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.graphs import graph_bytes, node, value

PLAIN = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)
"""
ANNOTATED = """\
from __future__ import annotations

from typing import Annotated

import torch


class Block(torch.nn.Module):
    def forward(self, x):
        return x


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x: Annotated[torch.Tensor, "FP32[4]"], shift: "FP32[1]", scale=1.0):
        return {"shifted": self.block(x) + shift, "top": x.argmax(1)}
"""
DECLARED = """\
import numpy as np

import batcher


@batcher.model(inputs={"text": "BYTES[1]"})
class Upper:
    def predict(self, inputs):
        upper = [[text.upper()] for text in inputs["text"][:, 0]]
        return {"upper": np.array(upper, object), "length": np.array([len(t[0]) for t in upper])}
"""
TYPED = """\
from typing import Annotated, TypedDict

import numpy as np


class Inputs(TypedDict):
    x: Annotated[np.ndarray, "FP32[n]"]


class Outputs(TypedDict):
    total: Annotated[np.ndarray, "FP32"]


class Total:
    def predict(self, inputs: Inputs) -> Outputs:
        return {"total": inputs["x"].sum(1)}
"""
FUNCTION = """\
import batcher


@batcher.model(inputs={"x": "FP32[n,2]", "factor": "FP32[1,1]"})
def scaled(x, factor):
    return {"y": x * factor}
"""
EXAMPLE = """\
import numpy as np

import batcher


@batcher.model(sample={"x": np.ones((2, 3), np.float32), "ids": [[1, 2], [3, 4]]})
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2, "ids": inputs["ids"]}
"""
TWO = """\
class First:
    def predict(self, inputs):
        return inputs


class Second(First):
    pass
"""


class Scaled(torch.nn.Module):
    """A module with an argument by place and one by keyword."""

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `x` times `scale`, and the sum of that."""
        return {"y": x * scale, "sum": (x * scale).sum(1)}


class Double(torch.nn.Module):
    """A module of one argument."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` twice."""
        return x * 2


def write_onnx(path: Path, kind: str) -> None:
    """Write a graph: `strings`, of a `fixed` batch of 1, or `wide`, with a free width."""
    if kind == "strings":
        nodes = [node("Identity", ["t"], ["u"])]
        content = graph_bytes(nodes, [value("t", "BYTES", None)], [value("u", "BYTES", None)])
    elif kind == "fixed":
        nodes = [node("Relu", ["x"], ["y"])]
        content = graph_bytes(nodes, [value("x", "FP32", 1, 3)], [value("y", "FP32", 1, 3)])
    else:
        nodes = [node("Relu", ["x"], ["y"])]
        shape = ("batch", 3, "width")
        content = graph_bytes(nodes, [value("x", "FP32", *shape)], [value("y", "FP32", *shape)])
    path.write_bytes(content)


def write_export(path: Path) -> None:
    """Write an exported program with an argument by keyword and outputs in a dict."""
    rows = torch.export.Dim("rows")
    example: Any = (torch.ones(3, 4),), {"scale": torch.ones(3, 1)}
    shapes = {"x": {0: rows}, "scale": {0: rows}}
    program = torch.export.export(Scaled(), *example, dynamic_shapes=shapes)
    torch.export.save(program, path)


def write_script(path: Path) -> None:
    """Write an archive of TorchScript, and `ones.npy`, an example for it, beside it."""
    torch.jit.save(torch.jit.script(Double()), str(path))
    np.save(path.with_name("ones.npy"), np.ones((2, 4), np.float32))
