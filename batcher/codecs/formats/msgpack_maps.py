"""`application/msgpack`.

Named arrays in the convention of the msgpack-numpy package, so its users need nothing else.

An array is the map `{b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2, 3], b"data": bytes}`;
keys may be text or bytes. Nested lists are read as well. Arrays of objects, which that package
pickles, are refused.
"""

from __future__ import annotations

from math import prod
from typing import Any

import msgpack
import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.formats.predictions import predictions
from batcher.codecs.formats.rows import inputs_from_document
from batcher.core.request import InferenceResponse
from batcher.core.spec import DATATYPES, Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError

_NUMBERS = {row.numpy.str: row.numpy for row in DATATYPES.values() if row.name != "BYTES"}
_DTYPES = {
    **_NUMBERS,
    **{dtype.newbyteorder(">").str: dtype.newbyteorder(">") for dtype in _NUMBERS.values()},
}


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """MessagePack holds any tensors; BYTES become nested lists of binaries."""
    return True


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs of `{"inputs": {name: array}}` or `{"instances": [row, …]}`.

    Arrays are views of the body's parts.

    Raises:
        DecodingError: not MessagePack, or an array whose map is wrong.
        InvalidInput: it is laid out in another way, or a value does not fit its input.
    """
    try:
        document = msgpack.unpackb(content.body, object_hook=_array, strict_map_key=True)
    except DecodingError:
        raise
    # the unpacker raises ValueError, TypeError, its own errors and whatever a hook raises
    except Exception as err:
        raise DecodingError(
            f"body: expected MessagePack; got something else: {err or type(err).__name__}"
        ) from err
    return inputs_from_document(document, spec)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return `{"outputs": {name: array}}`, with `"predictions"` for a model with labels."""
    document: dict[str, Any] = {
        "outputs": {
            tensor.name: _map(response.outputs[tensor.name], tensor) for tensor in spec.outputs
        },
    }
    if best := predictions(response, spec):
        document["predictions"] = best
    return to_msgpack(document)


def to_msgpack(value: Any) -> bytes:
    """Return `value` as MessagePack."""
    packed: bytes = msgpack.packb(value)
    return packed


def _map(array: Array, tensor: TensorSpec) -> Any:
    if tensor.datatype.name == "BYTES":
        return array.tolist()
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": array.tobytes(),
    }


def _array(value: dict[Any, Any]) -> Any:
    if b"nd" not in value and "nd" not in value:
        return {
            key.decode("utf-8", "replace") if isinstance(key, bytes) else key: inner
            for key, inner in value.items()
        }
    part = {
        key.decode("ascii", "replace") if isinstance(key, bytes) else key: inner
        for key, inner in value.items()
    }
    dtype, shape, data = _dtype(part.get("type")), part.get("shape", []), part.get("data")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise DecodingError(f"array: expected a shape of whole numbers; got {shape!r:.80}")
    if not isinstance(data, bytes) or prod(shape) * dtype.itemsize != len(data):
        got = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise DecodingError(
            f"array: expected {prod(shape) * dtype.itemsize} bytes for {dtype}{shape}; got {got}"
        )
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except (ValueError, OverflowError) as err:  # no elements, but axes beyond what numpy can count
        raise DecodingError(
            f"array: expected a shape that numpy can hold; got {shape!r:.80}: {err}"
        ) from err
    return checked_booleans(array.astype(dtype.newbyteorder("<"), copy=False), "array")


def _dtype(name: Any) -> np.dtype[Any]:
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(text, str) or text not in _DTYPES:
        raise DecodingError(f"array: expected a type such as '<f4'; got {text!r:.80}")
    return _DTYPES[text]
