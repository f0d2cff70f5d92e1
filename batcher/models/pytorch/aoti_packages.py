"""The folder that keeps compiled packages, and what a package must match to be used.

A package is used only if it was made from what is here now. Two things say so:

    its name    a hash of what is known before the model is imported: the files of the model, the
                processor or GPU, PyTorch, Python, the number of threads
    its notes   what the compiler found (a member of the package): the files of all modules that the
                model imported from elsewhere, each with a hash; a hash of the weights; the largest
                batch

Packages are machine code that the server runs. So the folder must belong to the user, and nobody
else may write to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.own_folder import cache_home, make_private
from batcher.errors import ModelLoadError

PACKAGE_SCHEME = 5
"""The way in which packages are made. A change of that way increases this number, and with it every
key, so that no package of the old way is used.
"""

_NOTES_MEMBER = "batcher-notes.json"
_OWN_FOLDERS = (Path(torch.__file__).resolve().parent, Path(__file__).resolve().parents[2])


class Notes(NamedTuple):
    """What the compiler noted of a package.

    Attributes:
        files: hashes of the modules that the model imported from elsewhere, by their paths.
        weights: hash of the model's weights.
        most: rows of the largest batch that the package takes.
        is_random: whether the weights are others each time that the model is made.
    """

    files: dict[str, str]
    weights: str
    most: int
    is_random: bool = False

    def write(self, package: Path) -> None:
        """Put these notes into the file `package`. Any thread."""
        with ZipFile(package, "a") as archive:
            archive.writestr(_NOTES_MEMBER, json.dumps(self._asdict()))

    def mismatch(self, weights: str, rows: int) -> str:
        """Return what has changed since the package was made; empty if nothing has.

        Args:
            weights: hash of the model's weights; empty if it is unknown.
            rows: rows of the largest batch; 0 if it is unknown.

        Any thread.
        """
        for path, digest in self.files.items():
            if file_digest(Path(path)) != digest:
                return f"{path} has changed"
        if weights and weights != self.weights:
            return "the weights have changed"
        return f"it takes batches of at most {self.most} rows" if rows > self.most else ""


def read_notes(package: Path) -> Notes | None:
    """Return the notes in the file `package`; None if it is damaged. Any thread."""
    try:
        with ZipFile(package) as archive:
            return Notes(**json.loads(archive.read(_NOTES_MEMBER)))
    except (BadZipFile, KeyError, ValueError, TypeError):
        return None


def cache_folder() -> Path:
    """Return the folder that keeps packages; create it if it is missing.

    Raises:
        ModelLoadError: there is no such folder of this user's alone and none can be made.

    Any thread.
    """
    try:
        folder = cache_home() / "batcher" / "aoti"
        make_private(folder)
    except OSError as err:
        raise ModelLoadError(
            f"expected a cache folder that can be written to, at XDG_CACHE_HOME or in HOME; {err}"
        ) from err
    return folder


def package_path(
    definition: ModelDefinition, settings: ModelSettings, device: torch.device
) -> Path:
    """Return where the package of a model is kept, or would be.

    Raises:
        ModelLoadError: there is no folder for packages.

    Any thread.
    """
    return cache_folder() / f"{package_key(definition, settings, device)}.pt2"


def package_key(definition: ModelDefinition, settings: ModelSettings, device: torch.device) -> str:
    """Return the name of a model's package: the model's name and a hash of all compiled in.

    Any thread.
    """
    digest = hashlib.sha256()
    threads = settings.torch_threads or torch.get_num_threads()
    built = (torch.__version__, torch.version.git_version, sys.version_info[:2])
    numbers = settings.dtype, settings.autocast, settings.channels_last
    facts = (PACKAGE_SCHEME, *built, threads, numbers, *_machine(device))
    digest.update(repr(facts).encode())
    for name, file in sorted(_files(definition)):
        digest.update(f"\n{name}\n{file_digest(file)}\n".encode())
    return f"{definition.spec.name}-{digest.hexdigest()[:32]}"


def file_digest(path: Path) -> str:
    """Return a hash of the file at `path`; empty if it cannot be read. Any thread."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def imported_files(modules: Iterable[ModuleType], own_folder: Path) -> dict[str, str]:
    """Return the hashes of the files of `modules` that come from elsewhere, by their paths.

    Not from elsewhere are PyTorch and Python, which the key names, the server, and the files in
    `own_folder`, of which the key has the hashes.

    Any thread.
    """
    found = {}
    for module in modules:
        path = Path(getattr(module, "__file__", None) or os.devnull).resolve()
        if path.is_file() and not path.is_relative_to(own_folder.resolve()) and not _is_known(path):
            found[str(path)] = file_digest(path)
    return found


def _is_known(path: Path) -> bool:
    """Return whether the file at `path` is of PyTorch, of the server, or of Python. Any thread."""
    if any(path.is_relative_to(folder) for folder in _OWN_FOLDERS):
        return True
    # Libraries are installed in a folder within that of Python's own modules.
    return _is_in(path, "stdlib", "platstdlib") and not _is_in(path, "purelib", "platlib")


def _is_in(path: Path, *names: str) -> bool:
    """Return whether `path` is in one of Python's folders of these names. Any thread."""
    return any(path.is_relative_to(Path(sysconfig.get_path(name)).resolve()) for name in names)


def weights_digest(module: torch.nn.Module) -> str:
    """Return a hash of the parameters and buffers of `module`, in order. Any thread."""
    digest = hashlib.sha256()
    for tensor in (*module.parameters(), *module.buffers()):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.layout is torch.strided and not tensor.is_quantized:
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(values.numpy().data)
    return digest.hexdigest()


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
