"""`compile: aoti`: a module compiled ahead of time to one native call (AOTInductor), which takes the interpreter lock once.

Compiling takes seconds to minutes and a C++ compiler. It runs in a process of its own, so that the
server that starts is not held up by it, and its result is kept: by the model's files, the machine,
PyTorch and the number of threads, all of which are compiled in. The packages are machine code, so
the folder that keeps them belongs to the user alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec, TensorSpec
from batcher.errors import ModelLoadError
from batcher.models.pytorch.aoti_run import CompiledModule
from batcher.models.pytorch.tensors import by_name, torch_dtype

Progress = Callable[[str], None]

MANY_ROWS = 1 << 30
"""A model that is compiled takes at least so many rows: what it does beyond what it was compiled
for is not defined.
"""

SCHEME = 3
"""Counts the ways in which packages were made here."""

SHOWN = 400
"""How much of a compiler's message is shown, its end."""


def find_or_compile(
    definition: ModelDefinition,
    settings: ModelSettings,
    wanted: str | torch.device,
    progress: Progress = lambda text: None,
) -> Path:
    """Return the package of a model, compiled now if it has not been before.

    Any thread; may take minutes.

    Raises:
        ModelLoadError: it cannot be compiled; the message says why.
    """
    if any(tensor.free_axes for tensor in definition.spec.inputs):
        raise ModelLoadError(
            "expected inputs without free axes: native code does not check their sizes"
        )
    device = torch.device(wanted)
    path = _cache_folder() / f"{_key(definition, settings, device)}.pt2"
    if path.is_file():
        return path
    _check_compiler()
    progress("compiling")
    _run_compiler(definition, settings, device, path)
    return path


def load_package(path: Path, device: torch.device) -> CompiledModule:
    """Return the compiled module of a package. Inference thread.

    Raises:
        ModelLoadError: the package cannot be used; it is thrown away.
    """
    try:
        return CompiledModule(path, device)
    except Exception as err:  # whatever is wrong with it, it can be made again
        path.unlink(missing_ok=True)
        raise ModelLoadError(
            f"{path.name} cannot be used and was thrown away: {type(err).__name__}: {err}"
        ) from err


def compile_module(
    spec: ModelSpec,
    source: torch.nn.Module | torch.export.ExportedProgram,
    device: torch.device,
    path: Path,
) -> None:
    """Compile `source` into a package at `path`, the batch axis left free.

    Raises:
        ModelLoadError: it would be compiled for some batch sizes only.
    """
    module = source.module() if isinstance(source, torch.export.ExportedProgram) else source
    examples = tuple(_example(tensor, device) for tensor in spec.inputs)
    axes = tuple({0: torch.export.Dim.DYNAMIC} for _ in spec.inputs)
    program = torch.export.export(_InOrder(module, spec), examples, dynamic_shapes=(axes,))
    bounds = [bound.upper for bound in program.range_constraints.values()]
    if len(bounds) != 1 or bounds[0] < MANY_ROWS:
        raise ModelLoadError("expected a model that takes batches of any size")
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


class _InOrder(torch.nn.Module):
    """A module whose outputs, by whatever name or place, are given in the order of the specification."""

    def __init__(self, module: Any, spec: ModelSpec) -> None:
        super().__init__()
        self._module = module
        self._spec = spec

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = by_name(self._module(*inputs), self._spec)
        return tuple(outputs[tensor.name] for tensor in self._spec.outputs)


def _example(tensor: TensorSpec, device: torch.device) -> torch.Tensor:
    return torch.zeros(
        (2, *tensor.shape), dtype=torch_dtype(tensor), device=device
    )  # one row would be compiled in


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as err:
        raise ModelLoadError(
            "there is no C++ compiler on this machine (on Debian: apt-get install g++)"
        ) from err


def _run_compiler(
    definition: ModelDefinition, settings: ModelSettings, device: torch.device, path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        task = {
            "name": definition.spec.name,
            "version": definition.spec.version,
            "folder": str(definition.folder),
            "settings": settings.model_dump(mode="json"),
            "device": str(device),
            "path": str(unfinished),
        }
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, json.dumps(task)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not unfinished.is_file():
            raise ModelLoadError(
                "the compiler failed: "
                f"{done.stderr.strip()[-SHOWN:] or f'exit status {done.returncode}'}"
            )
        unfinished.replace(path)


def _cache_folder() -> Path:
    """Return the folder that keeps packages, which nobody else may write to.

    What is in it will be run.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "batcher" / "aoti"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ModelLoadError(
            f"{folder}: expected a folder of this user that nobody else may write to"
        )
    return folder


def _key(definition: ModelDefinition, settings: ModelSettings, device: torch.device) -> str:
    digest = hashlib.sha256()
    threads = settings.torch_threads or torch.get_num_threads()
    digest.update(
        repr((SCHEME, torch.__version__, sys.version_info[:2], threads, *_machine(device))).encode()
    )
    for name, file in sorted(_files(definition)):
        digest.update(f"\n{name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return f"{definition.spec.name}-{digest.hexdigest()[:32]}"


def _files(definition: ModelDefinition) -> Iterator[tuple[str, Path]]:
    """Yield the model's files.

    All in its folder, and the module of its class if that is an installed one.
    """
    for file in definition.folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield str(file.relative_to(definition.folder)), file
    for beside in (definition.file, definition.weights):
        if beside is not None and beside.is_file():
            yield beside.name, beside
    module = definition.entry.partition(":")[0]
    if module:
        with suppress(ImportError, ValueError):
            found = find_spec(module)
            if found is not None and found.origin is not None and Path(found.origin).is_file():
                yield module, Path(found.origin)


def _machine(device: torch.device) -> Iterator[str]:
    yield platform.machine()
    if device.type == "cuda":
        yield str(torch.cuda.get_device_properties(device))
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        yield next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _main() -> None:
    """Compile what the first argument describes.

    The process ends with the server that started it.
    """
    with suppress(AttributeError, OSError):  # only Linux has it
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    task = json.loads(sys.argv[1])
    definition = load_model_definition(task["name"], task["version"], Path(task["folder"]))
    settings = ModelSettings.model_validate(task["settings"])
    device = torch.device(task["device"])
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    from batcher.models.loading import make_model

    source = getattr(make_model(definition, settings), "source", None)
    if source is None:
        raise ModelLoadError("expected a torch.nn.Module or an exported program to compile")
    with torch.no_grad():
        compile_module(definition.spec, source(device), device, Path(task["path"]))


if __name__ == "__main__":
    try:
        _main()
    except Exception as err:  # the message is what the server shows
        sys.exit(f"{type(err).__name__}: {err}")
