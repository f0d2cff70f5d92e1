"""The program that compiles one model with AOTInductor: `python -m` with this module's name.

`aoti.py` starts this program with one argument, a JSON object:

    name, version   of the model
    folder          version folder of the model, with `model.yaml`
    settings        ModelSettings of the model
    device          device that the package is compiled for (`cpu`, `cuda:0`)
    path            file that the package is written to

On failure the program writes the reason to standard error, for the server to show, and ends with
status 1. Compiling has a process of its own, so that the server is not held up while it starts.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from batcher.config.model_file import load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec, TensorSpec
from batcher.errors import ModelLoadError
from batcher.models.loading import make_model
from batcher.models.pytorch.tensors import torch_dtype
from batcher.models.result_names import named_outputs

BATCH_ROWS_REQUIRED = 1 << 30
"""Rows of a batch that a compiled model must take at least.

What native code does with more rows than it was compiled for is undefined, so a model whose graph
bounds the batch is refused. No `max_batch_size` comes near this number.
"""

EXAMPLE_ROWS = 2
"""Rows of the example inputs of an export: a single row would be compiled in as a constant."""

_PR_SET_PDEATHSIG = 1
"""Option of the system call `prctl`: the signal that this process gets when its parent ends."""


def compile_module(
    spec: ModelSpec,
    module: torch.nn.Module,
    device: torch.device,
    path: Path,
) -> None:
    """Compile `module` for `device` into a package at `path`, for batches of any size.

    Raises:
        ModelLoadError: the model would be compiled for some batch sizes only.

    Main thread of the compiling process.
    """
    examples = tuple(_example(tensor, device) for tensor in spec.inputs)
    axes = tuple({0: torch.export.Dim.DYNAMIC} for _ in spec.inputs)
    program = torch.export.export(_InOrder(module, spec), examples, dynamic_shapes=(axes,))
    bounds = [bound.upper for bound in program.range_constraints.values()]
    if len(bounds) != 1 or bounds[0] < BATCH_ROWS_REQUIRED:
        raise ModelLoadError("expected a model that takes batches of any size")
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


class _InOrder(torch.nn.Module):
    """A module that returns its outputs in the order of the specification.

    A compiled package has no names for its outputs; a module may return them by name.
    """

    def __init__(self, module: Any, spec: ModelSpec) -> None:
        """Wrap `module`. Main thread of the compiling process."""
        super().__init__()
        self._module = module
        self._spec = spec

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in order. Main thread of the compiling process."""
        outputs, _ = named_outputs(self._module(*inputs), self._spec)
        return tuple(outputs[tensor.name] for tensor in self._spec.outputs)


def _example(tensor: TensorSpec, device: torch.device) -> torch.Tensor:
    """Return zeros for one input. Main thread of the compiling process."""
    shape = (EXAMPLE_ROWS, *tensor.shape)
    return torch.zeros(shape, dtype=torch_dtype(tensor), device=device)


def _main() -> None:
    """Compile what the first argument describes. Main thread of the compiling process."""
    # The compiler must not outlive the server that started it. Only Linux has this call.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    task = json.loads(sys.argv[1])
    definition = load_model_definition(task["name"], task["version"], Path(task["folder"]))
    settings = ModelSettings.model_validate(task["settings"])
    device = torch.device(task["device"])
    # The number of threads is compiled in.
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    source = getattr(make_model(definition, settings), "source", None)
    if source is None:
        raise ModelLoadError("expected a torch.nn.Module or an exported program to compile")
    with torch.no_grad():
        compile_module(definition.spec, source(device), device, Path(task["path"]))


if __name__ == "__main__":
    try:
        _main()
    except Exception as err:
        sys.exit(f"{type(err).__name__}: {err}")
