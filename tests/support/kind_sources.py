"""Small models of many kinds, as a class with `predict` and as a `torch.nn.Module`.

The classes are used twice: the tests call them directly, and their source is what a server loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

Values = Mapping[str, Any]


class PredictOne:
    """One output, in a dict."""

    def predict(self, inputs: Values) -> Any:
        return {"y": inputs["x"] * 2 + 1}


class ModuleOne(torch.nn.Module):
    """One output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


class PredictPair:
    """Two outputs in a tuple."""

    def predict(self, inputs: Values) -> Any:
        return inputs["x"] * 2, inputs["x"].sum(1)


class ModulePair(torch.nn.Module):
    """Two outputs in a tuple."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x.sum(1)


class PredictNamed:
    """Two outputs in a dict, in another order than model.yaml has, and a third one."""

    def predict(self, inputs: Values) -> Any:
        x = inputs["x"]
        return {"total": x.sum(1), "more": x, "double": x * 2}


class ModuleNamed(torch.nn.Module):
    """Two outputs in a dict, in another order than model.yaml has, and a third one."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": x.sum(1), "more": x, "double": x * 2}


class PredictText:
    """Text in, text out."""

    def predict(self, inputs: Values) -> Any:
        return {"y": [text.decode() + "!" for text in inputs["text"]]}


class PredictUint8:
    """Whole numbers of 8 bits."""

    def predict(self, inputs: Values) -> Any:
        return {"y": 255 - inputs["x"]}


class ModuleUint8(torch.nn.Module):
    """Whole numbers of 8 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 255 - x


class PredictThird:
    """Floats of 64 bits, whose last digits 32 bits do not have."""

    def predict(self, inputs: Values) -> Any:
        return {"y": inputs["x"] / 3}


class ModuleThird(torch.nn.Module):
    """Floats of 64 bits, whose last digits 32 bits do not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 3


class PredictLarge:
    """Whole numbers beyond 32 bits."""

    def predict(self, inputs: Values) -> Any:
        return {"y": inputs["x"] * 3_000_000_000}


class ModuleLarge(torch.nn.Module):
    """Whole numbers beyond 32 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3_000_000_000


class PredictNot:
    """Booleans."""

    def predict(self, inputs: Values) -> Any:
        return {"y": ~inputs["x"]}


class ModuleNot(torch.nn.Module):
    """Booleans."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.logical_not(x)


class PredictKeyword:
    """Two inputs, which model.yaml lists the other way round."""

    def predict(self, inputs: Values) -> Any:
        return {"y": inputs["left"] - 2 * inputs["right"]}


class ModuleKeyword(torch.nn.Module):
    """Two inputs, taken by keyword alone, which model.yaml lists the other way round."""

    def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left - 2 * right


class PredictFree:
    """Rows of any length."""

    def predict(self, inputs: Values) -> Any:
        return {"y": inputs["x"].sum(1)}


class ModuleFree(torch.nn.Module):
    """Rows of any length."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)


class PredictPrepared:
    """A picture of bytes, which `preprocess` turns into floats under another name."""

    def preprocess(self, inputs: Values) -> Any:
        return {"pixels": inputs["picture"].astype(np.float32) / 255}

    def predict(self, inputs: Values) -> Any:
        return {"y": inputs["pixels"].mean(1)}


class ModulePrepared(torch.nn.Module):
    """A picture of bytes, which `preprocess` turns into floats under another name."""

    def preprocess(self, inputs: Values) -> Any:
        return {"pixels": inputs["picture"].astype(np.float32) / 255}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(1)


class PredictWindows:
    """A recording, which `preprocess` cuts into windows and `postprocess` makes one row again."""

    def preprocess(self, inputs: Values) -> Any:
        return {"window": inputs["x"].reshape(-1, 2)}

    def predict(self, inputs: Values) -> Any:
        return {"energy": (inputs["window"] ** 2).sum(1)}

    def postprocess(self, outputs: Values) -> Any:
        return {"y": outputs["energy"].reshape(-1, 3).max(1)}


class ModuleWindows(torch.nn.Module):
    """A recording, which `preprocess` cuts into windows and `postprocess` makes one row again."""

    def preprocess(self, inputs: Values) -> Any:
        return {"window": inputs["x"].reshape(-1, 2)}

    def forward(self, window: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"energy": (window**2).sum(1)}

    def postprocess(self, outputs: Values) -> Any:
        return {"y": outputs["energy"].reshape(-1, 3).max(1)}


class PredictGradient:
    """The negative gradient of an energy."""

    def predict(self, inputs: Values) -> Any:
        x = torch.from_numpy(inputs["x"]).requires_grad_(True)
        (x**3).sum().backward()
        assert x.grad is not None
        return {"y": -x.grad}


class ModuleGradient(torch.nn.Module):
    """The negative gradient of an energy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_(True)
        found = torch.autograd.grad([(x**3).sum()], [x])[0]
        assert found is not None
        return -found


class PredictUnequal:
    """As many boxes for a row as the row says."""

    def predict(self, inputs: Values) -> Any:
        return {"y": [np.full((n, 2), n, np.float32) for n in inputs["count"].tolist()]}


class ModuleUnequal(torch.nn.Module):
    """As many boxes for a row as the row says."""

    def forward(self, count: torch.Tensor) -> list[torch.Tensor]:
        return [torch.ones(int(n.item()), 2) * n for n in count]
