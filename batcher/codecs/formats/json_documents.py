"""A request in JSON, whatever the route: names and rows (`rows.py`), and pictures as base64.

`application/json`, its lines, and TensorFlow Serving's JSON are read alike. What differs is what
stands around: members of the document, and the layout of the answer.
"""

from __future__ import annotations

from typing import Any

from batcher.codecs.content import Buffer, Content, Files
from batcher.codecs.formats.base64_pictures import may_have_pictures, with_pictures
from batcher.codecs.formats.json_text import with_json
from batcher.codecs.formats.references import with_files
from batcher.codecs.formats.rows import inputs_from_document
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, ModelSpec


def read_inputs(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in a body that is a document of either layout.

    Raises:
        Unfetched: files stand in place of inputs, and are not here yet.
        DecodingError: the body is not JSON, or a picture cannot be read.
        InvalidInput: the layout is another one, or a value does not fit its input.
        TooLarge: there are more rows, values or pixels than the limits allow.
    """
    body, limits, files = content.text(), content.limits, content.files
    max_pixels = pixels_of(body, spec, content.max_image_pixels)
    return with_json(body, lambda document: inputs_of(document, spec, limits, max_pixels, files))


def pixels_of(body: Buffer, spec: ModelSpec, max_image_pixels: int) -> int | None:
    """Return `max_image_pixels`, or None if `body` has no picture for the model `spec`."""
    return max_image_pixels if may_have_pictures(body, spec) else None


def inputs_of(
    document: Any,
    spec: ModelSpec,
    limits: DecodingLimits,
    max_pixels: int | None,
    files: Files | None = None,
) -> dict[str, Array]:
    """Return the inputs in a document; `max_pixels` is None if there is no picture.

    `files` may stand in place of inputs; None where none may. Raises as `read_inputs` does.
    """
    if files is not None:
        document = with_files(document, spec, files, limits)
    has_one_layout = isinstance(document, dict) and ("instances" in document) != (
        "inputs" in document
    )
    if max_pixels is not None and has_one_layout:
        document = {"inputs": with_pictures(document, spec, max_pixels, limits)}
    return inputs_from_document(document, spec, limits)
