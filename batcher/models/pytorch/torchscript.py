"""Format `torchscript`: an archive made by `torch.jit.save`, with code and weights.

Such an archive holds no pickles of Python objects, so any archive may be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batcher.models.protocol import Arrays
from batcher.models.pytorch.module import TorchModule


class TorchScriptModel(TorchModule):
    """A scripted or traced module."""

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive onto `device`, and freeze the module.

        Freezing makes constants of the weights, so that operators can be fused.

        Inference thread.
        """
        module = torch.jit.load(str(self._definition.file), map_location=device).eval()
        frozen: Callable[..., Any] = torch.jit.freeze(module)
        return frozen

    def operators(self, inputs: Arrays) -> int:
        """Return 0: TorchScript's interpreter runs operators without Python's lock.

        Inference thread.
        """
        return 0


MODEL = TorchScriptModel
