"""The program that compiles one model with AOTInductor: `python -m` with this module's name.

`aoti.py` starts this program with one argument, a JSON object:

    name, version   of the model
    folder          version folder of the model, with `model.yaml`
    settings        ModelSettings of the model
    device          device that the package is compiled for (`cpu`, `cuda:0`)
    path            file that the package is written to, with notes of what it was made from

On failure the program writes the reason to standard error, for the server to show, and ends with
status 1. Compiling has a process of its own, so that the server is not held up while it starts.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec, TensorSpec
from batcher.errors import ModelLoadError
from batcher.models.loading import make_model
from batcher.models.pytorch.aoti_packages import Notes, imported_files, weights_digest
from batcher.models.pytorch.batch_sizes import ANY_SIZE, BatchSizes, sizes_of
from batcher.models.pytorch.tensors import torch_dtype
from batcher.models.result_names import named_outputs

EXAMPLE_ROWS = 2
"""Rows of the example inputs of an export: a single row would be compiled in as a constant."""

_PR_SET_PDEATHSIG = 1
"""Option of the system call `prctl`: the signal that this process gets when its parent ends."""


def compile_module(
    spec: ModelSpec,
    module: torch.nn.Module,
    device: torch.device,
    path: Path,
    rows: int,
    sizes: BatchSizes = ANY_SIZE,
) -> int:
    """Compile `module` for `device` into a package at `path`; return its largest batch in rows.

    The package must take all batches of `sizes` up to `rows` rows: what native code does with more
    rows than it was compiled for is undefined. Raises ModelLoadError for a package that would not.

    Main thread of the compiling process.
    """
    program = _exported(spec, module, device, sizes)
    most = sizes.most if sizes.is_one else _largest_batch(program)
    if most < min(rows, sizes.most):
        raise ModelLoadError(
            f"expected a model that takes batches of up to {rows} rows; it would be compiled for "
            f"at most {most}"
        )
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return most


def _exported(
    spec: ModelSpec, module: torch.nn.Module, device: torch.device, sizes: BatchSizes
) -> torch.export.ExportedProgram:
    """Return `module` as a program for batches of `sizes`. Main thread of the compiling process."""
    rows = sizes.most if sizes.is_one else sizes.padded(EXAMPLE_ROWS * sizes.multiple)
    examples = tuple(_example(tensor, device, rows) for tensor in spec.inputs)
    axes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in spec.inputs),)
    ordered = _InOrder(module, spec)
    return torch.export.export(ordered, examples, dynamic_shapes=None if sizes.is_one else axes)


def _largest_batch(program: torch.export.ExportedProgram) -> int:
    """Return the rows of the largest batch of a program with one free axis; 0 if there are others.

    Main thread of the compiling process.
    """
    symbols = [size for size in program.range_constraints if size.is_Symbol]
    return sizes_of(program).most if len(symbols) == 1 else 0


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


def _example(tensor: TensorSpec, device: torch.device, rows: int) -> torch.Tensor:
    """Return zeros for one input. Main thread of the compiling process."""
    shape = (rows, *tensor.shape)
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
    _compile(definition, settings, device, Path(task["path"]))


def _compile(
    definition: ModelDefinition, settings: ModelSettings, device: torch.device, path: Path
) -> None:
    """Compile a model into a package with notes at `path`. Main thread of the compiling process."""
    # What PyTorch imports to compile is not the model's.
    for name in ("torch._dynamo", "torch._inductor.compile_fx"):
        import_module(name)
    known = set(sys.modules)
    model = make_model(definition, settings)
    source = getattr(model, "source", None)
    if source is None:
        raise ModelLoadError("expected a torch.nn.Module or an exported program to compile")
    module, rows = source(device), settings.max_batch_size
    with torch.no_grad():
        sizes = getattr(model, "sizes", ANY_SIZE)
        most = compile_module(definition.spec, module, device, path, rows, sizes)
    files = imported_files(
        [sys.modules[name] for name in set(sys.modules) - known], definition.folder
    )
    weights = weights_digest(module)
    del module  # one at a time
    Notes(files, weights, most, weights_digest(source(device)) != weights).write(path)


if __name__ == "__main__":
    try:
        _main()
    except Exception as err:
        sys.exit(f"{type(err).__name__}: {err}")
