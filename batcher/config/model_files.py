"""The files that a `model.yaml` names, or leaves to be found: they must stand beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from batcher.config.reading import Source, read_yaml
from batcher.core.git_pointers import FETCHING, is_pointer
from batcher.errors import ConfigError

_SUFFIXES = {
    "torchscript": (".pt", ".pth", ".ts", ".jit"),
    "export": (".pt2", ".ep"),
    "onnx": (".onnx",),
    "sklearn": (".joblib", ".pkl", ".pickle"),
    "xgboost": (".ubj", ".json"),
    "lightgbm": (".txt",),
    "torchserve": (".mar",),
    "pmml": (".pmml",),
    "keras": (".keras",),
}
"""How files of the formats are called that need one, mostly."""

_OF_OTHERS = {".json", ".txt"}
"""Suffixes of samples and notes as well: a file that is called so must be named."""

_KEYS = ("file", "weights", "sample")
"""The keys whose values are names of files."""


def files_named_in(path: Path, there: Collection[str]) -> list[str]:
    """Return the files that the `model.yaml` at `path` names.

    One that it leaves to be found, and that is not among the files `there`, is named as `*.onnx`.

    Raises ConfigError: it is no YAML.
    """
    values = read_yaml(path).values
    named = [values[key] for key in _KEYS if isinstance(values.get(key), str) and values[key]]
    suffixes = _suffixes_to_find(values)
    if not suffixes or any(Path(name).name == name and name.endswith(suffixes) for name in there):
        return named
    return [*named, f"*{suffixes[0]}"]


def _suffixes_to_find(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the file is called that a `model.yaml` of these `values` leaves to be found."""
    return _SUFFIXES.get(str(values.get("format")), ()) if values.get("file") is None else ()


def refuse_pointers(folder: Path, source: Source) -> None:
    """Check that no file that `source` names is one that Git LFS has left a pointer for.

    Raises:
        ConfigError: one of them is; the message names the file.
    """
    for key in _KEYS:
        file = source.values.get(key)
        if isinstance(file, str) and is_pointer(folder / file):
            raise ConfigError(
                f"{source.origin((key,))}: {key}: expected the content of {file!r}; got {FETCHING}"
            )


def find_file(folder: Path, source: Source) -> None:
    """Name the model's file in `source` where `file` is left out for a format that needs one.

    One file in `folder` that is called as files of the format are is the model's, unless files of
    other kinds are called so, too.

    Raises:
        ConfigError: there is none, or there are several; the message says what to write.
    """
    suffixes = _suffixes_to_find(source.values)
    if not suffixes:
        return
    found = sorted(path.name for path in folder.iterdir() if path.suffix in suffixes)
    place = source.origin(("format",))
    if len(found) == 1 and Path(found[0]).suffix not in _OF_OTHERS:
        source.override(("file",), found[0], place)
        return
    raise ConfigError(
        f"{place}: file: expected the model's file for format {source.values['format']}; got none: "
        f"{_advice_of_several(found, suffixes[0])}"
    )


def _advice_of_several(found: list[str], suffix: str) -> str:
    """Return what to write where the files `found` may be meant; with none, one of `suffix`."""
    if not found:
        return f"put a file that ends in {suffix} beside it, or write `file: NAME`"
    several = f"{len(found)} may be meant: " if len(found) > 1 else ""
    return several + _line_for("file", found[:3])


def check_files(folder: Path, named: Mapping[str, str | None], source: Source) -> None:
    """Check that the files `named` in `model.yaml`, by their keys, are in `folder`.

    Raises:
        ConfigError: one of them is not; the message names files that may be meant.
    """
    for key, file in named.items():
        if file and not (folder / file).is_file():
            place = source.origin((key,))
            raise ConfigError(
                f"{place}: {key}: expected a file {file!r} beside it; there is none: "
                f"{_file_advice(folder, key, file)}"
            )


def _file_advice(folder: Path, key: str, file: str) -> str:
    """Return what to do about a `file` that is not in `folder`; names files that may be meant."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    alike = [name for name in names if Path(name).suffix == Path(file).suffix]
    meant = get_close_matches(file, names, cutoff=0.7) or alike[:3]
    if not meant:
        return "put the file there, or name another one"
    return _line_for(key, meant)


def _line_for(key: str, found: list[str]) -> str:
    """Return the line to write in `model.yaml` for one of the files that were `found`."""
    return f"write `{key}: {found[0]}`, which is there" + (
        f" (or {', '.join(found[1:])})" if found[1:] else ""
    )
