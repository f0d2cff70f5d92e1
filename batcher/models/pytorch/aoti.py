"""`compile: aoti`: modules compiled ahead of time (AOTInductor).

A compiled module is one native call, which takes the interpreter lock once; an eager module takes
the lock for every operator. Compiling takes seconds to minutes and needs a C++ compiler. So a model
is compiled in a process of its own (`aoti_program.py`), while others may load, and the result,
a package, is kept:

    a package is kept, and matches? - yes -> loaded -> its answers are those of the module?
        +- no -> compiled, kept -------------+            +- yes -> CompiledModule
                        ^                                 +- no: once, if it was kept
                        +-------------------------------------+

What a package must match stands in `aoti_packages.py`. A package that is damaged, or whose answers
are not those of the module, is thrown away and made anew. A package is kept where it is sound and
something else is at fault, such as a full temporary folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.load_pause import others_may_load
from batcher.models.protocol import Progress
from batcher.models.pytorch.aoti_packages import package_path, read_notes
from batcher.models.pytorch.aoti_run import CompiledModule, UnusableLibrary

_PROGRAM = "batcher.models.pytorch.aoti_program"
"""The program that compiles; started by name, since this module must not import it: the program
imports the loading of models, which imports this module.
"""

MAX_COMPILER_MESSAGE_CHARS = 400
"""Characters of a compiler's message that are shown: the end, where the reason stands."""

Check = Callable[[CompiledModule], None]
"""Raises UnusablePackage if a compiled module does not answer as the module does."""


class UnusablePackage(ModelLoadError):
    """A package that must be made anew."""


class Wanted(NamedTuple):
    """What a package is wanted for.

    Attributes:
        definition: what the model is.
        settings: how the model is run.
        device: where it runs.
        weights: hash of the weights that the module has; empty if the module is not loaded.
        rows: rows of the largest batch; 0 if the module is not loaded.
    """

    definition: ModelDefinition
    settings: ModelSettings
    device: torch.device
    weights: str = ""
    rows: int = 0


def compiled_module(wanted: Wanted, check: Check, progress: Progress) -> CompiledModule:
    """Return the compiled module of a model, from a package that is kept or made now.

    Raises:
        ModelLoadError: the model cannot be compiled; the message says why.

    Inference thread; may take minutes.
    """
    path, is_new = _obtain(wanted, progress)
    try:
        return _load(path, wanted.device, check)
    except UnusablePackage as err:
        if is_new:
            raise
        progress(f"compiled anew: {err}")
    path.unlink(missing_ok=True)
    return _load(_obtain(wanted, progress)[0], wanted.device, check)


def find_or_compile(wanted: Wanted, progress: Progress = lambda text: None) -> Path:
    """Return the path of a model's package; compile the model if no package is kept that matches.

    Raises:
        ModelLoadError: the model cannot be compiled; the message says why.

    Any thread; may take minutes.
    """
    return _obtain(wanted, progress)[0]


def _obtain(wanted: Wanted, progress: Progress) -> tuple[Path, bool]:
    """Return the path of a model's package, and whether it was made now.

    Raises:
        ModelLoadError: the model cannot be compiled.

    Any thread; may take minutes.
    """
    if any(tensor.free_axes for tensor in wanted.definition.spec.inputs):
        raise ModelLoadError(
            "expected inputs without free axes: native code does not check their sizes"
        )
    path = package_path(wanted.definition, wanted.settings, wanted.device)
    if _is_kept(path, wanted, progress):
        return path, False
    _check_compiler()
    with others_may_load(), _locked(path.parent):
        # Another process may have made it meanwhile.
        if not _is_kept(path, wanted, lambda text: None):
            progress("compiling")
            _run_compiler(wanted, path)
    return path, True


def load_package(path: Path, device: torch.device) -> CompiledModule:
    """Return the compiled module of a package.

    Raises:
        UnusablePackage: the package is damaged, or was made for another PyTorch.
        ModelLoadError: the package cannot be unpacked or opened here.

    Inference thread.
    """
    try:
        return CompiledModule(path, device)
    except (BadZipFile, zlib.error, EOFError, UnusableLibrary) as err:
        raise UnusablePackage(f"{path.name} cannot be used: {type(err).__name__}: {err}") from err
    except OSError as err:
        raise ModelLoadError(
            f"expected a temporary folder with room, whose files may be run; set TMPDIR: {err}"
        ) from err


def _load(path: Path, device: torch.device, check: Check) -> CompiledModule:
    """Return the module of a package, after `check`; raises as both do. Inference thread."""
    module = load_package(path, device)
    check(module)
    return module


def _is_kept(path: Path, wanted: Wanted, progress: Progress) -> bool:
    """Return whether there is a package that matches; tell what does not.

    Raises:
        ModelLoadError: the weights are never those of a package.

    Any thread.
    """
    if not path.is_file():
        return False
    notes = read_notes(path)
    if notes is not None and wanted.weights not in ("", notes.weights) and notes.is_random:
        raise ModelLoadError(
            "expected the same weights each time that the model is made: give it `weights`"
        )
    mismatch = "it is damaged" if notes is None else notes.mismatch(wanted.weights, wanted.rows)
    if mismatch:
        progress(f"compiled anew: the package does not match: {mismatch}")
    return not mismatch


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder of packages: one process compiles at a time. Any thread.

    Two instances of a model are so compiled once, and the memory of one compiler is enough.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


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


def _run_compiler(wanted: Wanted, path: Path) -> None:
    """Compile a model into a package at `path`. Any thread; takes seconds to minutes."""
    # Nobody else compiles here: what lies here is of compilers that were killed.
    for left in path.parent.glob("unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
    definition = wanted.definition
    try:
        # Written elsewhere and renamed, so that a package is never seen half written.
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            task = {
                "name": definition.spec.name,
                "version": definition.spec.version,
                "folder": str(definition.folder),
                "settings": wanted.settings.model_dump(mode="json", exclude={"cache"}),
                "device": str(wanted.device),
                "path": str(unfinished),
            }
            _check_outcome(_run_program(json.dumps(task), path.parent), unfinished)
            unfinished.replace(path)
    except OSError as err:
        raise ModelLoadError(f"{path.parent}: expected room for a package: {err}") from err


def _check_outcome(process: subprocess.CompletedProcess[str], package: Path) -> None:
    """Check that the compiler has ended well and has written `package`. Any thread."""
    if process.returncode or not package.is_file():
        message = process.stderr.strip()[-MAX_COMPILER_MESSAGE_CHARS:]
        reason = message or f"exit status {process.returncode}"
        raise ModelLoadError(f"the compiler failed: {reason}")


def _run_program(task: str, packages: Path) -> subprocess.CompletedProcess[str]:
    """Run the program that compiles, with `task` as its argument, to its end. Any thread."""
    # -P keeps the current folder off the program's path, which gets this process's instead: the
    # model's class may be importable only from there.
    environment = {
        # PyTorch's own cache of kernels, which are run too: in a folder of this user's.
        "TORCHINDUCTOR_CACHE_DIR": str(packages.with_name("inductor")),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", _PROGRAM, task],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
