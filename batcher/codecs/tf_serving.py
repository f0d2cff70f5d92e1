"""TensorFlow Serving's JSON, in its two layouts.

    layout      request                    answer
    by row      {"instances": [row, …]}    {"predictions": [row, …]}
    by column   {"inputs": {name: rows}}   {"outputs": {name: rows}}

Where the model has only one tensor, its bare values stand in place of the object of names. Byte
strings that are not text are `{"b64": "…"}`, both ways.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error
from typing import Any

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.json_lists import to_json
from batcher.codecs.formats.json_text import with_json
from batcher.codecs.formats.long_lists import Changed, LongList
from batcher.codecs.formats.nested_lists import MAX_DEPTH
from batcher.codecs.formats.rows import inputs_from_document
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput

SIGNATURE = "serving_default"
"""Name of the one signature that every model has."""


def decode(
    body: Buffer, spec: ModelSpec, limits: DecodingLimits = NO_LIMITS
) -> tuple[dict[str, Array], bool]:
    """Return the inputs in `body`, and whether its layout is by row.

    Raises:
        DecodingError: the body is not JSON.
        InvalidInput: the body has neither layout or names another signature, or a value does not
            fit its input.
        TooLarge: a large body has more rows or values than `limits` allow.
    """
    return with_json(body, lambda document: _inputs(document, spec, limits))


def _inputs(
    document: Any, spec: ModelSpec, limits: DecodingLimits
) -> tuple[dict[str, Array], bool]:
    if isinstance(document, dict):
        signature = document.get("signature_name", SIGNATURE)
        if signature not in (SIGNATURE, ""):
            raise InvalidInput(
                f"signature_name: expected {SIGNATURE!r}, the only one; got {signature!r:.60}"
            )
        takes_bytes = any(tensor.datatype.name == "BYTES" for tensor in spec.inputs)
        document = {
            key: _without_base64(value, 0) if takes_bytes else value
            for key, value in document.items()
        }
        column = document.get("inputs")
        if len(spec.inputs) == 1 and "inputs" in document and not isinstance(column, dict):
            document["inputs"] = {spec.inputs[0].name: column}
    return inputs_from_document(document, spec, limits), "instances" in document


def encode(response: InferenceResponse, spec: ModelSpec, by_row: bool) -> bytes:
    """Return the answer in the layout of its request."""
    columns = {
        tensor.name: _listed(response.outputs[tensor.name], tensor) for tensor in spec.outputs
    }
    only = columns[spec.outputs[0].name] if len(columns) == 1 else None
    if not by_row:
        return to_json({"outputs": columns if only is None else only})
    if only is not None:
        return to_json({"predictions": only})
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return to_json({"predictions": rows})


def _listed(array: Array, tensor: TensorSpec) -> Any:
    if tensor.datatype.name == "BYTES":
        return _with_base64(array.tolist())
    # orjson reads only arrays that lie in memory row by row
    return np.ascontiguousarray(plain_numbers(array, tensor.datatype.name))


def _with_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": b64encode(value).decode()}
    return str(value)


def _without_base64(value: Any, depth: int) -> Any:
    """Return `value` with bytes in place of each object whose only member is `b64`."""
    if depth > MAX_DEPTH:
        # left as it is: `nested_lists` refuses it as too deep
        return value
    if isinstance(value, list):
        return [_without_base64(inner, depth + 1) for inner in value]
    if isinstance(value, LongList):
        return Changed(value, lambda piece: _without_base64(piece, depth))
    if not isinstance(value, dict):
        return value
    text = value.get("b64")
    if len(value) != 1 or not isinstance(text, str):
        return {name: _without_base64(inner, depth + 1) for name, inner in value.items()}
    try:
        return b64decode(text, validate=True)
    except (Error, ValueError) as err:
        raise InvalidInput(f"b64: expected base64; got {text!r:.60}") from err
