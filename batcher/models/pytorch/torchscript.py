"""Format `torchscript`: an archive made by `torch.jit.save`, with code and weights.

Such an archive holds no pickles of Python objects, so any archive may be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batcher.models.protocol import Arrays
from batcher.models.pytorch.input_order import arranged_for, parameters_of_script
from batcher.models.pytorch.module import TorchModule
from batcher.models.pytorch.operators import UNKNOWN_BUILTIN, unknown_operator


class TorchScriptModel(TorchModule):
    """A scripted or traced module."""

    own_buffers = True  # a script may keep its inputs, for instance to compare the next ones

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive onto `device`, and freeze the module.

        Freezing makes constants of the weights, so that operators can be fused.

        Inference thread.
        """
        module = self._archived(device).eval()
        frozen = torch.jit.freeze(self.precision.with_weights(module))
        arranged, note = arranged_for(self._definition, frozen, parameters_of_script(module))
        self.notes = (note,) if note else ()
        return self.precision.around(arranged, self.spec)

    def _archived(self, device: torch.device) -> torch.jit.ScriptModule:
        """Return the module in the archive, on `device`.

        Raises:
            ModelLoadError: the module has operators that no imported library has registered.

        Inference thread.
        """
        try:
            module: torch.jit.ScriptModule = torch.jit.load(
                str(self._definition.file), map_location=device
            )
        except RuntimeError as err:
            if found := UNKNOWN_BUILTIN.search(str(err)):
                raise unknown_operator(found[1], found[2]) from err
            raise
        return module

    def operators(self, inputs: Arrays) -> int:
        """Return 0: TorchScript's interpreter runs operators without Python's lock.

        Inference thread.
        """
        return 0


MODEL = TorchScriptModel
