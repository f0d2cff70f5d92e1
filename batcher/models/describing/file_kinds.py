"""What kind of model a file holds, by its name and its first bytes; what to do with other files."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from batcher.config.unserved_formats import REASONS, SUFFIXES
from batcher.core.git_pointers import FETCHING, is_pointer
from batcher.errors import ConfigError

SERVED = (
    "net.onnx, net.pt2, net.pt (TorchScript), model.joblib, model.ubj, net.mar, model.pmml, "
    "net.keras, or my_model.py"
)
"""Files that can be served, for messages."""

_BY_SUFFIX = {
    ".py": "python",
    ".onnx": "onnx",
    ".mar": "torchserve",
    ".pmml": "pmml",
    ".keras": "keras",
}
_PICKLES = (".pkl", ".pickle", ".joblib")
_TORCH = (".pt", ".pth", ".pt2", ".ts", ".torchscript", ".jit", ".bin", ".ckpt")
_MODULE = """write the module that the weights belong to, say into my_model.py, and serve that file:

    import torch

    import batcher

    @batcher.model(inputs={{"x": "FP32[4]"}}, weights="{weights}")  # dtype and shape of one row
    class Net(torch.nn.Module):
        ..."""


def kind_of(file: Path) -> str:
    """Return the format of the model in `file`, as `model.yaml` names it.

    Raises:
        ConfigError: the file is not there, or holds no model; the message says what to write.
    """
    _check_there(file)
    suffix = file.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in _TORCH:
        return _kind_of_torch(file)
    check_served(file.name)
    if suffix in _PICKLES:
        return "sklearn"
    if kind := _kind_of_booster(file, suffix):
        return kind
    if suffix == ".safetensors":
        raise ConfigError(
            f"{file.name}: expected a model; got weights alone ({_weights(file)}): "
            f"{_MODULE.format(weights=file.name)}"
        )
    raise ConfigError(f"{file.name}: expected one of {SERVED}; got a file of another kind")


def _check_there(file: Path) -> None:
    """Raise ConfigError if there is no `file`, or one that never holds a model."""
    if not file.is_file():
        raise ConfigError(f"{file}: expected a file or a folder; {missing(file)}")
    if is_pointer(file):
        raise ConfigError(f"{file.name}: expected a model; got {FETCHING}")
    if file.name == "model.yaml":
        raise ConfigError(
            f"{file}: expected the folder of a model, or one of {SERVED}; got the file that says "
            f"what is in a folder: name that folder, {file.parent}"
        )


def check_served(name: str) -> None:
    """Raise ConfigError if a file of this `name` is of a format that is known and not served."""
    unserved = SUFFIXES.get(Path(name).suffix.lower())
    if unserved is not None:
        raise ConfigError(f"{name}: expected one of {SERVED}; {REASONS[unserved]}")


def _kind_of_booster(file: Path, suffix: str) -> str:
    """Return the library whose trees the file holds, by its first bytes; empty for other files."""
    if suffix == ".ubj":
        return "xgboost"
    if suffix not in (".json", ".txt"):
        return ""
    with file.open("rb") as opened:
        head = opened.read(200)
    if suffix == ".txt":
        return "lightgbm" if head.startswith(b"tree\n") else ""
    return "xgboost" if b'"learner"' in head or b'"version"' in head[:20] else ""


def _kind_of_torch(file: Path) -> str:
    """Return the format of a file of PyTorch's. Raises ConfigError."""
    try:
        with ZipFile(file) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError) as err:
        got = f"a file of another kind ({err})"
        raise ConfigError(
            f"{file.name}: expected an archive that torch.jit.save or torch.export.save has "
            f"written; got {got}"
        ) from err
    ends = {name.partition("/")[2] for name in names}
    if "constants.pkl" in ends or any(name.startswith("code/") for name in ends):
        return "torchscript"
    if any(name.endswith((".json", "archive_format")) for name in names):
        return "export"
    raise ConfigError(
        f"{file.name}: expected a program, as torch.jit.save or torch.export.save write one; got "
        "what torch.save has written, weights or a pickle, which holds no program: export the "
        'model by `torch.export.save(torch.export.export(net.eval(), example), "net.pt2")`, or '
        f"save its weights as .safetensors and {_MODULE.format(weights='net.safetensors')}"
    )


def missing(file: Path) -> str:
    """Return in words that `file` is not there, and what may be meant."""
    there = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
    close = get_close_matches(file.name, there, n=1, cutoff=0.6)
    return f"there is none; did you mean {close[0]}?" if close else "there is none"


def _weights(file: Path) -> str:
    """Return the names of some tensors in a file of safetensors, which begins with their list."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            names = [name for name in json.loads(opened.read(min(size, 1 << 24))) if name[0] != "_"]
    except (OSError, ValueError, IndexError):
        return "which cannot be read"
    return f"{len(names)} tensors, {', '.join(names[:3])}, …"
