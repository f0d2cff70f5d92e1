"""Format `torchscript`: an archive made by `torch.jit.save`.

It holds code and weights, no Python pickles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batcher.models.pytorch.module import TorchModule


class TorchScriptModel(TorchModule):
    """A scripted or traced module."""

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive onto `device`, and freeze it.

        Weights become constants, operators are fused. Inference thread.
        """
        module = torch.jit.load(str(self._definition.file), map_location=device).eval()
        frozen: Callable[..., Any] = torch.jit.freeze(module)
        return frozen

    def operators(self) -> int:
        """Return 0: the interpreter of TorchScript runs them, without Python's lock.

        Inference thread.
        """
        return 0


MODEL = TorchScriptModel
