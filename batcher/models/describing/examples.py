"""A first example shows names, dtypes and the shape of one row, where nobody declares them.

    in the example                      becomes
    an array, `.npy`                    the only input, as the array is
    arrays by name, `.npz`              an input each
    `{"inputs": {"x": [[0.5, 1]]}}`     an input each: numbers with a point FP32, others INT64,
    in `.json`, also `{"x": …}`         texts BYTES, true and false BOOL

The first axis counts rows. Every other axis is taken as fixed: one example cannot show which axes
may have other sizes. Declare such an axis, as in `FP32[n,3]`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batcher.core.spec import DATATYPES, NAMES, Array, dtype_text
from batcher.errors import ConfigError

READABLE = (".npy", ".npz", ".json")
"""What the names of files end with that can be examples."""


def read_example(file: Path) -> Any:
    """Return the array, or arrays by name, in `file`. Raises ConfigError."""
    if file.suffix not in READABLE:
        raise ConfigError(
            f"sample {file.name}: expected {', '.join(READABLE)} to show the inputs by; declare "
            'the inputs for other files, as in --input "image=FP32[3,224,224]"'
        )
    try:
        if file.suffix == ".json":
            return _of_json(json.loads(file.read_text()))
        loaded = np.load(file, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError) as err:
        raise ConfigError(f"sample {file.name}: expected arrays; got {err}") from err


def example_by_name(example: Any, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return arrays or lists by name of an example: a file, from `folder` on, an array, a mapping.

    `names` are those of the inputs, if known: an array alone is the first of them. Raises
    ConfigError.
    """
    if isinstance(example, str | Path):
        example = read_example(folder / example)
    if not isinstance(example, Mapping):
        example = {names[0] if names else "input": example}
    return {str(name): _on_host(value) for name, value in example.items()}


def tensor_of(name: str, value: Any) -> dict[str, Any]:
    """Return what `model.yaml` would say of an input of which `value` holds rows.

    Raises ConfigError.
    """
    array = _array(name, value)
    return {"name": name, "dtype": datatype_of(name, array), "shape": list(array.shape[1:])}


def datatype_of(name: str, array: Array) -> str:
    """Return the name of the datatype of `array`. Raises ConfigError."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    found = NAMES.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise ConfigError(
            f"{name}: expected a dtype of {', '.join(DATATYPES)}; got {dtype_text(array.dtype)}"
        )
    return found


def _of_json(document: Any) -> Any:
    if isinstance(document, Mapping) and isinstance(document.get("inputs"), Mapping):
        return document["inputs"]
    return document.get("instances", document) if isinstance(document, Mapping) else document


def _on_host(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _array(name: object, value: Any) -> Array:
    """Return `value` as an array of rows. Raises ConfigError."""
    try:
        array = np.asarray(value)
    except ValueError as err:
        raise ConfigError(f"sample: {name}: expected rows of one shape; got {err}") from err
    if not array.ndim or not len(array):
        raise ConfigError(f"sample: {name}: expected rows, on the first axis; got none")
    if array.dtype.kind in "US":
        texts = [
            str(text).encode() if isinstance(text, str) else bytes(text) for text in array.flat
        ]
        return _objects(texts, array.shape)
    # What JSON and Python call a float is FP32 for nearly every model.
    is_python = not hasattr(value, "dtype")
    return array.astype(np.float32) if is_python and array.dtype.kind == "f" else array


def _objects(texts: list[bytes], shape: tuple[int, ...]) -> Array:
    found = np.empty(len(texts), object)
    found[:] = texts
    return found.reshape(shape)
