"""`application/json`: nested lists, by input or by row; also the one JSON reader and writer.

JSON has no NaN and no infinities. A body with the literals `NaN` or `Infinity`, which some encoders
write, is refused with an error that says so. In an answer a number that is not finite becomes
`null`. Clients that need such numbers use a binary format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.predictions import predictions
from batcher.codecs.formats.rows import inputs_from_document
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return True: JSON holds any tensors."""
    return True


def to_json(value: Any) -> bytes:
    """Return `value` as compact UTF-8 JSON; numpy arrays become nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(body: Buffer) -> Any:
    """Return the value of a JSON document.

    Raises:
        DecodingError: the body is not JSON.
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
        InvalidInput: the layout is another one, or a value does not fit its input.
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
        # numpy cannot vectorize over nothing
        if not array.size:
            return array.tolist()
        return np.vectorize(text_of, otypes=[object])(array).tolist()
    # orjson reads only arrays that lie in memory row by row
    return np.ascontiguousarray(plain_numbers(array, tensor.datatype.name))


def text_of(value: Any) -> str:
    """Return a BYTES element as text; bytes that are not UTF-8 become replacement characters."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
