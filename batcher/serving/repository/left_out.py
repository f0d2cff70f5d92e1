"""Why a folder of the repository is not served: what was expected there, what is there, what to do.

A model that is laid out wrongly would else vanish without a word: the server would be ready, and
the model unknown. The usual mistakes have a reason of their own:

    in the repository                   the reason advises
    digits/v1/model.yaml                to rename `v1` to `1`
    digits/1/model.yml                  to rename `model.yml` to `model.yaml`
    digits/1/net.onnx                   to write a model.yaml, as `batcher init` does
    net.onnx                            to serve that file, or to make a folder for it
    1/model.yaml, v1/model.yaml         to serve the folder above

Reasons name files and folders of the repository and no path outside of it: clients may read them.
Every function here reads the disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from batcher.core.names import MAX_VERSION_DIGITS, is_number

DEFINITION = "model.yaml"
"""The file that makes a folder a version."""

MODEL_SUFFIXES = (
    *(".onnx", ".pt2", ".pt", ".pth", ".torchscript", ".safetensors", ".py"),
    *(".joblib", ".pkl", ".pickle", ".ubj", ".mar", ".pmml", ".keras"),
)
"""What the names of files end with that a model may be made of."""

_ALMOST = re.compile(r"(?i)models?[._-]?ya?ml(\.(?!md$)\w+)*")
_LIKE_A_VERSION = re.compile(r"(?i)v(er(sion)?)?[._-]?\d[\d.]*|\d[\d.]*|latest")
_DIGITS = re.compile(r"\d+")
_NO_MODEL = re.compile(r"^([._]|lost\+found$)")


def is_no_model(name: str) -> bool:
    """Return whether no model has that `name`: hidden, made by Python, or by the file system."""
    return _NO_MODEL.match(name) is not None


def is_like_version(name: str) -> bool:
    """Return whether a folder of this `name` is, or was meant to be, that of a version."""
    return _LIKE_A_VERSION.fullmatch(name) is not None


def reason_of_version(folder: Path) -> str:
    """Return why `folder`, which a version would stand in, is none."""
    names = _names(folder)
    if almost := [name for name in names if _ALMOST.fullmatch(name) and name != DEFINITION]:
        return f"expected a file {DEFINITION}; got {almost[0]!r}: rename it"
    if files := _model_files(names):
        return (
            f"expected a file {DEFINITION} beside {files[0]!r}; there is none: write one, as "
            "`batcher init` does"
        )
    return f"expected a file {DEFINITION}; {'there is none' if names else 'the folder is empty'}"


def reason_of_model(folder: Path, numbered: Sequence[Path]) -> str:
    """Return why `folder` is no model; `numbered` are the folders in it named by a number."""
    if misnamed := misnamed_versions(folder):
        return reason_of_name(misnamed[0].name)
    if numbered:
        return f"{numbered[0].name}: {reason_of_version(numbered[0])}"
    if inner := [name for name in _names(folder) if _is_file(folder / name / "1" / DEFINITION)]:
        return (
            f"expected the folder of one model; got a folder of models, such as {inner[0]!r}: "
            f"serve it with `batcher serve {_from_here(folder)}`"
        )
    return reason_of_version(folder)


def reason_of_name(name: str) -> str:
    """Return why the folder `name`, which holds a `model.yaml`, is no version."""
    is_model = not is_like_version(name)
    return (
        f"expected folders of versions that are named by a number, 1, 2, …; got {name!r}: rename "
        f"it to {_number_in(name)}"
        f"{', or serve the folder that it is in, if it is a model of its own' * is_model}"
    )


def reason_of_number(name: str) -> str:
    """Return why the folder `name` of a version, in the repository, is no model."""
    rename = "" if is_number(name) else f"rename it to {_number_in(name)}, and "
    return (
        f"expected the folder of a model, with its name; got {name!r}, a name of versions: {rename}"
        "serve the folder above it with `batcher serve FOLDER`, or put that folder into the "
        "repository"
    )


def _number_in(name: str) -> str:
    """Return the number that a version called `name` may have instead."""
    found = _DIGITS.search(name)
    number = str(int(found[0])) if found else "1"
    is_fine = len(number) <= MAX_VERSION_DIGITS
    return number if is_fine else f"a number of at most {MAX_VERSION_DIGITS} digits"


def reason_of_file(path: Path) -> str:
    """Return why the file `path` in the repository is no model; empty for a file of no model."""
    if path.name == DEFINITION:
        return (
            "expected a folder for each model; this repository is the folder of one: serve it with "
            "`batcher serve FOLDER`, or move it into a folder with the model's name"
        )
    if path.suffix not in MODEL_SUFFIXES:
        is_almost = _ALMOST.fullmatch(path.name)
        return f"expected a file {DEFINITION}; got {path.name!r}: rename it" if is_almost else ""
    return (
        f"expected a folder for each model; got a file: serve it with `batcher serve "
        f"{_from_here(path)}`, "
        "or make a folder of it with `batcher init FOLDER --from FILE`"
    )


def _from_here(path: Path) -> str:
    """Return `path` as it is written in the working directory, or the end of it elsewhere."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return f"{path.parent.name}/{path.name}"


def misnamed_versions(folder: Path) -> list[Path]:
    """Return the folders in `folder` that hold a `model.yaml` and are not named by a number."""
    return [
        folder / name
        for name in _names(folder)
        if not is_number(name) and not is_no_model(name) and _is_file(folder / name / DEFINITION)
    ]


def _is_file(path: Path) -> bool:
    with suppress(OSError):  # a folder that nobody may look into holds nothing to advise about
        return path.is_file()
    return False


def _model_files(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(MODEL_SUFFIXES)]


def _names(folder: Path) -> list[str]:
    """Return the names in `folder`, sorted; none if it cannot be read."""
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []
