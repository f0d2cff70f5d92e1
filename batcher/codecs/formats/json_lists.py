"""`application/json`: nested lists, by input or by row.

This file is also the one place that turns values into JSON.

JSON has no NaN and no infinities. The literals `NaN` and `Infinity` that some encoders write are
refused on the way in, with an error that says so; on the way out a non-finite number becomes
`null`. Clients that need them use a binary format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.predictions import numbers, predictions
from batcher.codecs.formats.rows import inputs_from_document
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """JSON holds any tensors."""
    return True


def to_json(value: Any) -> bytes:
    """Return `value` as compact UTF-8 JSON; numpy arrays become nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(body: Buffer) -> Any:
    """Return the value of a JSON document.

    Raises:
        DecodingError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        literals = [name for name in (b"NaN", b"Infinity") if name in bytes(body)]
        hint = f"; JSON has no {literals[0].decode()}" if literals else ""
        raise DecodingError(f"body: expected JSON; got something else: {err}{hint}") from err


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs of `{"inputs": {name: lists}}` or `{"instances": [row, …]}`.

    Raises:
        DecodingError: the body is not JSON in its charset.
        InvalidInput: it is laid out in another way, or a value does not fit its input.
    """
    return inputs_from_document(from_json(content.text()), spec)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return `{"outputs": {name: lists}}`, with `"predictions"` for a model with labels."""
    document: dict[str, Any] = {
        "outputs": {
            tensor.name: _listable(response.outputs[tensor.name], tensor) for tensor in spec.outputs
        },
    }
    if best := predictions(response, spec):
        document["predictions"] = best
    return to_json(document)


def _listable(array: Array, tensor: TensorSpec) -> Any:
    if tensor.datatype.name == "BYTES":
        return (
            np.vectorize(text_of, otypes=[object])(array).tolist() if array.size else array.tolist()
        )
    return np.ascontiguousarray(numbers(array, tensor.datatype.name))


def text_of(value: Any) -> str:
    """Return a BYTES element as text; bytes that are none are replaced."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
