"""`compile: aoti`: modules compiled ahead of time (AOTInductor), and the folder that keeps them.

A compiled module is one native call, which takes the interpreter lock once; an eager module takes
the lock for every operator. Compiling takes seconds to minutes and needs a C++ compiler. So a model
is compiled in a process of its own (`aoti_program.py`), and the result, a package, is kept:

    find_or_compile ─► a package for this key is kept? ─ yes ─► its path
                                    └- no -> start the compiler, keep the package -> its path
    load_package ─► CompiledModule (`aoti_run.py`)

The key of a package is a hash of everything that is compiled in: the files of the model, the
processor or GPU, the versions of PyTorch and Python, the number of threads. Packages are machine
code that the server runs. So the folder of packages must belong to the user, and nobody else may
write to that folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.protocol import Progress
from batcher.models.pytorch.aoti_run import CompiledModule

_PROGRAM = "batcher.models.pytorch.aoti_program"
"""The program that compiles; started by name, since this module must not import it: the program
imports the loading of models, which imports this module.
"""

PACKAGE_SCHEME = 3
"""The way in which packages are made. A change of that way increases this number, and with it every
key, so that no package of the old way is used.
"""

MAX_COMPILER_MESSAGE_CHARS = 400
"""Characters of a compiler's message that are shown: the end, where the reason stands."""


def find_or_compile(
    definition: ModelDefinition,
    settings: ModelSettings,
    device_name: str | torch.device,
    progress: Progress = lambda text: None,
) -> Path:
    """Return the path of a model's package; compile the model if no package is kept.

    Raises:
        ModelLoadError: the model cannot be compiled; the message says why.

    Any thread; may take minutes.
    """
    if any(tensor.free_axes for tensor in definition.spec.inputs):
        raise ModelLoadError(
            "expected inputs without free axes: native code does not check their sizes"
        )
    device = torch.device(device_name)
    path = _cache_folder() / f"{_key(definition, settings, device)}.pt2"
    if path.is_file():
        return path
    _check_compiler()
    progress("compiling")
    _run_compiler(definition, settings, device, path)
    return path


def load_package(path: Path, device: torch.device) -> CompiledModule:
    """Return the compiled module of a package.

    Raises:
        ModelLoadError: the package cannot be used; its file is deleted.

    Inference thread.
    """
    try:
        return CompiledModule(path, device)
    # Whatever is wrong with the package, the next load can make another.
    except Exception as err:
        path.unlink(missing_ok=True)
        raise ModelLoadError(
            f"{path.name} cannot be used and was thrown away: {type(err).__name__}: {err}"
        ) from err


def _check_compiler() -> None:
    """Check that there is a C++ compiler: its absence is said plainly, and at once. Any thread."""
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
    """Compile a model into a package at `path`. Any thread; takes seconds to minutes."""
    # Written elsewhere and renamed, so that a package is never seen half written.
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
        process = _run_program(json.dumps(task))
        if process.returncode or not unfinished.is_file():
            message = process.stderr.strip()[-MAX_COMPILER_MESSAGE_CHARS:]
            reason = message or f"exit status {process.returncode}"
            raise ModelLoadError(f"the compiler failed: {reason}")
        unfinished.replace(path)


def _run_program(task: str) -> subprocess.CompletedProcess[str]:
    """Run the program that compiles, with `task` as its argument, to its end. Any thread."""
    # -P keeps the current folder off the program's path, which gets this process's instead: the
    # model's class may be importable only from there.
    return subprocess.run(
        [sys.executable, "-P", "-m", _PROGRAM, task],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _cache_folder() -> Path:
    """Return the folder that keeps packages; create it if it is missing.

    Raises:
        ModelLoadError: another user owns the folder or may write to it. The packages in the folder
            are run, so whoever may write there could run code as this user.

    Any thread.
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
    """Return the name of a model's package: the model's name and a hash of all compiled in.

    Any thread.
    """
    digest = hashlib.sha256()
    threads = settings.torch_threads or torch.get_num_threads()
    machine = tuple(_machine(device))
    facts = (PACKAGE_SCHEME, torch.__version__, sys.version_info[:2], threads, *machine)
    digest.update(repr(facts).encode())
    for name, file in sorted(_files(definition)):
        digest.update(f"\n{name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return f"{definition.spec.name}-{digest.hexdigest()[:32]}"


def _files(definition: ModelDefinition) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the model's files.

    These are all files in the version folder, the model's file and its weights wherever they lie,
    and the file of the installed module that the class is in, if there is one.

    Any thread.
    """
    for file in definition.folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield str(file.relative_to(definition.folder)), file
    # These two may lie outside the folder.
    for path in (definition.file, definition.weights):
        if path is not None and path.is_file():
            yield path.name, path
    module = definition.entry.partition(":")[0]
    if module:
        # A module that cannot be found lies in the folder, whose files were yielded above.
        with suppress(ImportError, ValueError):
            spec = find_spec(module)
            if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
                yield module, Path(spec.origin)


def _machine(device: torch.device) -> Iterator[str]:
    """Yield what the machine can do: architecture, GPU, instruction sets. Any thread."""
    yield platform.machine()
    if device.type == "cuda":
        yield str(torch.cuda.get_device_properties(device))
    # Only Linux has this file. x86 calls the line `flags`, Arm `Features`.
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        yield next((line for line in lines if line.startswith(("flags", "Features"))), "")
