"""Format `export`: a `.pt2` archive made by `torch.export.save`.

    archive -> check_archive (unless trusted) -> torch.export.load -> program -> to the device
        -> placed: called with the inputs in the order of `model.yaml` (`export_inputs.py`)
        -> padded: called with batches of any size (`batch_sizes.py`), if it takes some sizes only

Programs that take their inputs by place, in the order of `model.yaml`, in batches of any size, are
called as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.run_sizes import RunSizes
from batcher.models.pytorch.archive_check import check_archive, check_operators
from batcher.models.pytorch.batch_sizes import (
    ANY_SIZE,
    SPECIALISED_ROWS,
    Padded,
    sizes_of,
)
from batcher.models.pytorch.branches import branch_note
from batcher.models.pytorch.comparing import comparison_inputs
from batcher.models.pytorch.export_inputs import PlacedProgram, place_inputs, takes_in_order
from batcher.models.pytorch.export_tensors import check_inputs, training_note
from batcher.models.pytorch.module import TorchModule

# PyTorch imports this module only when the first archive is read, and takes a second for it. A
# process that waits for its first model imports it in that time.
with suppress(ImportError):
    import_module("torch._export.serde.serialize")


class ExportModel(TorchModule):
    """An exported program; `check_archive` guards the reading."""

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        super().__init__(definition, settings)
        self.sizes = ANY_SIZE

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive and move its program to `device`. Inference thread."""
        self.refuse_lacking("an exported program")
        module = self.source(device)
        if self.sizes.least == SPECIALISED_ROWS and self._takes_one_row(module):
            self.sizes = self.sizes._replace(least=1)
        self.max_rows = self.sizes.max_rows
        self.run_sizes = RunSizes(self.sizes.multiple)
        if self.sizes.need_padding:
            self.notes += (
                f"the exported program takes batches of {self.sizes}: smaller batches are padded",
            )
        return self.fitted(module)

    def source(self, device: torch.device) -> torch.nn.Module:
        """Return the program as a module of the inputs in order, on `device`.

        Raises:
            ModelLoadError: the model is not trusted, and its archive could run code; or the
                program takes other inputs than are declared.

        Any thread.
        """
        program = self._program()
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        self.sizes = sizes_of(program)
        placing = place_inputs(
            program, [tensor.name for tensor in self.spec.inputs], self._definition.listing
        )
        check_inputs(program, self.spec.inputs, placing.places)
        notes = (placing.note, training_note(program), branch_note(program, self.sizes))
        self.notes += tuple(filter(None, notes))
        if takes_in_order(program, placing.places):
            module: torch.nn.Module = program.module()
        else:
            module = PlacedProgram(program, placing.places)
        return self.precision.around(self.precision.with_weights(module), self.spec)

    def fitted(self, module: Callable[..., Any]) -> Callable[..., Any]:
        """Return `module`, which takes batches of `sizes`, for batches of any size. Any thread."""
        return Padded(module, self.sizes) if self.sizes.need_padding else module

    def _program(self) -> torch.export.ExportedProgram:
        """Return the program in the archive. Any thread."""
        file = self._definition.file
        # PyTorch says of an operator that is not registered only that it cannot be resolved.
        if self._settings.trusted:
            check_operators(file)
        else:
            check_archive(file, self._definition.imports)
        return torch.export.load(str(file))

    def _takes_one_row(self, module: Callable[..., Any]) -> bool:
        """Return whether the program runs on a single row, and returns one. Inference thread."""
        if any(tensor.free_axes for tensor in self.spec.inputs) or not self._settings.warmup:
            return True
        try:
            with torch.inference_mode():
                outputs = pytree.tree_leaves(module(*comparison_inputs(self.spec, 1, self._device)))
        # Whatever it is that a single row cannot do.
        except Exception:
            return False
        tensors = [value for value in outputs if isinstance(value, torch.Tensor)]
        return all(value.ndim > 0 and len(value) == 1 for value in tensors)


MODEL = ExportModel
