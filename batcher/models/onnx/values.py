"""Arrays of the server to what a graph takes, and a graph's results back to arrays.

in the server                   in the graph
BYTES: objects that are bytes   strings, whose text is UTF-8
scores, one row after another   a sequence of maps from class to score (ZipMap)
any other array                 the same array
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.config.onnx_axes import fits
from batcher.config.onnx_definition import described
from batcher.config.onnx_file import GraphTensor
from batcher.core.spec import DATATYPES, Array, shape_text
from batcher.errors import InvalidInput, ModelContractError, ModelLoadError


def strings_of(array: Array, name: str) -> Array:
    """Return an array of bytes as one of strings: onnxruntime would write `b'…'` for bytes.

    Raises:
        InvalidInput: an element is not UTF-8.

    Inference thread.
    """
    strings = np.empty(array.size, object)
    try:
        strings[:] = list(map(bytes.decode, array.ravel().tolist()))
    except UnicodeDecodeError as err:
        raise InvalidInput(
            f"input {name!r}: expected text in UTF-8; got {err.object[:40]!r}"
        ) from err
    return strings.reshape(array.shape)


def array_of(value: Any) -> Array:
    """Return a result as an array, strings as bytes. Inference thread."""
    array = np.asarray(value)
    if not array.dtype.hasobject:
        return array
    encoded = np.empty(array.size, object)
    encoded[:] = list(map(str.encode, array.ravel().tolist()))
    return encoded.reshape(array.shape)


def scores_of(maps: list[dict[Any, float]], tensor: GraphTensor) -> Array:
    """Return the scores in `maps`, one row for each, in the order of the labels of `tensor`.

    Raises:
        ModelContractError: a map has other keys than the ZipMap that made the map.

    Inference thread.
    """
    try:
        rows = [[row[label] for label in tensor.labels] for row in maps]
    except KeyError as err:
        raise ModelContractError(
            f"output {tensor.name!r}: expected maps with the keys {list(tensor.labels)}; one has "
            f"no {err}"
        ) from err
    return np.array(rows, np.float32).reshape(len(maps), len(tensor.labels))


def constant_of(value: Any, tensor: GraphTensor) -> Array:
    """Return `value`, as it stands in `model.yaml`, as the array that the input `tensor` takes.

    A single number stands for all elements of an input whose size is fixed.

    Raises:
        ModelLoadError: the value has another shape than the input, or elements of another kind.

    Inference thread.
    """
    if not tensor.dtype or tensor.dtype == "BF16":
        raise ModelLoadError(f"constants: expected numbers or texts; {described(tensor)} is none")
    array = _elements(value, tensor)
    if tensor.shape is None:
        return array
    sizes = [dim for dim in tensor.shape if isinstance(dim, int)]
    if not array.ndim and len(sizes) == len(tensor.shape):
        return np.full(sizes, array[()], array.dtype)
    if not fits(tensor.shape, array.shape):
        raise _wrong_constant(value, tensor, f" of shape {shape_text(array.shape)}")
    return array


def _elements(value: Any, tensor: GraphTensor) -> Array:
    """Return `value` as an array of the elements that `tensor` takes. Raises ModelLoadError."""
    dtype = DATATYPES[tensor.dtype].numpy
    try:
        array, plain = np.array(value, dtype), np.array(value)
    except (TypeError, ValueError, OverflowError) as err:
        raise _wrong_constant(value, tensor) from err
    # Of 1.5 an input of whole numbers would get 1.
    is_cut = dtype.kind in "iub" and not np.array_equal(array, plain)
    if (plain.dtype.kind == "U") != dtype.hasobject or is_cut:
        raise _wrong_constant(value, tensor)
    return array


def _wrong_constant(value: Any, tensor: GraphTensor, shape: str = "") -> ModelLoadError:
    return ModelLoadError(
        f"constants: {tensor.name}: expected {described(tensor)}, as the graph takes it; got "
        f"{value!r:.80}{shape}"
    )
