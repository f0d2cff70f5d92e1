"""`application/msgpack`: named arrays as the msgpack-numpy package packs them.

Users of that package need nothing else. An array is a map, whose keys may be text or bytes:

    {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2, 3], b"data": bytes}

Nested lists are read as well. Arrays of objects are refused: msgpack-numpy pickles them.
"""

from __future__ import annotations

from math import prod
from typing import Any

import msgpack
import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.formats.long_lists import LongList
from batcher.codecs.formats.msgpack_lists import with_msgpack
from batcher.codecs.formats.predictions import predictions
from batcher.codecs.formats.references import with_files
from batcher.codecs.formats.rows import inputs_from_document
from batcher.codecs.joining import joined
from batcher.core.error_text import brief
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceResponse
from batcher.core.shapes import checked_shape, too_many_axes
from batcher.core.spec import DATATYPES, Array, ModelSpec, TensorSpec, dtype_text, shape_text
from batcher.errors import DecodingError

_NUMBERS = {row.numpy.str: row.numpy for row in DATATYPES.values() if row.name != "BYTES"}
_DTYPES = {
    **_NUMBERS,
    **{dtype.newbyteorder(">").str: dtype.newbyteorder(">") for dtype in _NUMBERS.values()},
}

_VIEWED_BYTES = 1 << 16
"""Bytes of an array from which the packer does not copy it; a binary of so many has a length of
four bytes in MessagePack.
"""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return True: MessagePack holds any tensors; BYTES become nested lists of binaries."""
    return True


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs of `{"inputs": {name: array}}` or `{"instances": [row, …]}`.

    The arrays are views of the bytes that the unpacker gives.

    Raises:
        DecodingError: the body is not MessagePack, or an array's map is wrong.
        InvalidInput: the layout is another one, or a value does not fit its input.
        TooLarge: a large body has more rows or values than the limits allow.
    """
    limits, files = content.limits, content.files

    def read(document: Any) -> dict[str, Array]:
        if files is not None:
            document = with_files(document, spec, files, limits)
        return inputs_from_document(document, spec, limits)

    return with_msgpack(content.body, _unpacked, read)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return `{"outputs": {name: array}}`, with `"predictions"` for a model with labels."""
    document: dict[str, Any] = {
        "outputs": {
            tensor.name: _packable(response.outputs[tensor.name], tensor) for tensor in spec.outputs
        },
    }
    if best := predictions(response, spec):
        document["predictions"] = best
    return _with_large_arrays(document)


def to_msgpack(value: Any) -> bytes:
    """Return `value` as MessagePack."""
    packed: bytes = msgpack.packb(value)
    return packed


def _packable(array: Array, tensor: TensorSpec) -> Any:
    if is_ragged(array):
        return [_packable(row, tensor) for row in array]
    if tensor.datatype.name == "BYTES":
        return array.tolist()
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": _bytes_of(array),
    }


def _bytes_of(array: Array) -> Buffer:
    """Return the bytes of `array`, a view if they are many."""
    if array.nbytes < _VIEWED_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).data.cast("B")


def _with_large_arrays(document: dict[str, Any]) -> Buffer:
    """Return `document` as MessagePack; views in it are copied once, by `joined`."""
    packer, pieces = msgpack.Packer(autoreset=False), list[Buffer]()
    _pack(document, packer, pieces)
    pieces.append(packer.bytes())
    return joined(pieces)


def _pack(value: Any, packer: msgpack.Packer, pieces: list[Buffer]) -> None:
    """Pack `value`; what comes before a view, and the view, go to `pieces`."""
    if isinstance(value, memoryview):
        pieces += (packer.bytes(), b"\xc6" + len(value).to_bytes(4, "big"), value)
        packer.reset()
    elif isinstance(value, dict):
        packer.pack_map_header(len(value))
        for key, inner in value.items():
            packer.pack(key)
            _pack(inner, packer, pieces)
    elif isinstance(value, list) and value and isinstance(value[0], dict):  # rows of arrays
        packer.pack_array_header(len(value))
        for inner in value:
            _pack(inner, packer, pieces)
    else:
        packer.pack(value)


def _unpacked(value: dict[Any, Any]) -> Any:
    """Return the array that a map describes, or a map of any other kind with its keys as text."""
    if b"nd" not in value and "nd" not in value:
        return {
            key.decode("utf-8", "replace") if isinstance(key, bytes) else key: inner
            for key, inner in value.items()
        }
    fields = {
        key.decode("ascii", "replace") if isinstance(key, bytes) else key: inner
        for key, inner in value.items()
    }
    return _array(_dtype(fields.get("type")), fields.get("shape", []), fields.get("data"))


def _array(dtype: np.dtype[Any], shape: Any, data: Any) -> Array:
    if isinstance(shape, LongList):
        raise too_many_axes(shape.read(), "array")
    sizes = checked_shape(shape, dtype.itemsize, "array")
    expected = prod(sizes) * dtype.itemsize
    if not isinstance(data, bytes) or expected != len(data):
        got = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise DecodingError(
            f"array: expected {expected} bytes for {dtype_text(dtype)}{shape_text(sizes)}; "
            f"got {got}"
        )
    array = np.frombuffer(data, dtype).reshape(sizes)
    return checked_booleans(array.astype(dtype.newbyteorder("<"), copy=False), "array")


def _dtype(name: Any) -> np.dtype[Any]:
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(text, str) or text not in _DTYPES:
        raise DecodingError(f"array: expected a type such as '<f4'; got {brief(text)}")
    return _DTYPES[text]
