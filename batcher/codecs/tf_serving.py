"""TensorFlow Serving's JSON, in its two layouts.

    layout      request                    answer
    by row      {"instances": [row, …]}    {"predictions": [row, …]}
    by column   {"inputs": {name: rows}}   {"outputs": {name: rows}}

Where the model has only one tensor, its bare values stand in place of the object of names. Byte
strings that are not text are `{"b64": "…"}`, both ways. So are pictures in a request.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np

from batcher.codecs.content import MAX_IMAGE_PIXELS, Buffer
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.json_documents import inputs_of, pixels_of
from batcher.codecs.formats.json_text import to_json, with_json
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.error_text import brief
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput

SIGNATURE = "serving_default"
"""Name of the one signature that every model has."""


def decode(
    body: Buffer,
    spec: ModelSpec,
    limits: DecodingLimits = NO_LIMITS,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> tuple[dict[str, Array], bool]:
    """Return the inputs in `body`, and whether its layout is by row.

    A picture has at most `max_image_pixels`.

    Raises:
        DecodingError: the body is not JSON.
        InvalidInput: the body has neither layout or names another signature, or a value does not
            fit its input.
        TooLarge: a large body has more rows or values than `limits` allow, or pictures have too
            many pixels.
    """
    max_pixels = pixels_of(body, spec, max_image_pixels)

    def read(document: Any) -> tuple[dict[str, Array], bool]:
        _check_signature(document)
        by_row = isinstance(document, dict) and "instances" in document
        return inputs_of(document, spec, limits, max_pixels), by_row

    return with_json(body, read)


def _check_signature(document: Any) -> None:
    signature = document.get("signature_name", SIGNATURE) if isinstance(document, dict) else ""
    if signature not in (SIGNATURE, ""):
        raise InvalidInput(
            f"signature_name: expected {SIGNATURE!r}, the only one; got {brief(signature, 60)}"
        )


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
    if is_ragged(array):
        return [_listed(row, tensor) for row in array]
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
