"""`application/json`: nested lists, by input or by row.

An object `{"b64": "…"}` stands for bytes of a BYTES input, and for a picture of an input that is
made of pictures.

JSON has no NaN and no infinities. A body with the literals `NaN` or `Infinity`, which some encoders
write, is refused with an error that says so. In an answer a number that is not finite becomes
`null`. Clients that need such numbers use a binary format.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.json_documents import read_inputs
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.formats.predictions import predictions
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return True: JSON holds any tensors."""
    return True


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs of `{"inputs": {name: lists}}` or `{"instances": [row, …]}`.

    Raises:
        DecodingError: the body is not JSON in its charset, or a picture cannot be read.
        InvalidInput: the layout is another one, or a value does not fit its input.
        TooLarge: a large body has more rows, values or pixels than the limits allow.
    """
    return read_inputs(content, spec)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return `{"outputs": {name: lists}}`, with `"predictions"` for a model with labels."""
    document: dict[str, Any] = {
        "outputs": {
            tensor.name: listable(response.outputs[tensor.name], tensor) for tensor in spec.outputs
        },
    }
    if best := predictions(response, spec):
        document["predictions"] = best
    return to_json(document)


def listable(array: Array, tensor: TensorSpec) -> Any:
    """Return an output as what orjson writes as nested lists."""
    if is_ragged(array):
        return [listable(row, tensor) for row in array]
    if tensor.datatype.name == "BYTES":
        return texts_of(array).tolist()
    # orjson reads only arrays that lie in memory row by row
    return np.ascontiguousarray(plain_numbers(array, tensor.datatype.name))


def texts_of(array: Array) -> Array:
    """Return BYTES elements as text; bytes that are not UTF-8 become replacement characters."""
    values = array.ravel().tolist()
    texts = np.empty(len(values), object)
    try:
        texts[:] = list(map(bytes.decode, values))
    except (UnicodeDecodeError, TypeError):
        texts[:] = [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in values
        ]
    return texts.reshape(array.shape)
