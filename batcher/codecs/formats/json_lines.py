"""`application/jsonlines`: one JSON value on each line, and each line one row.

    request    [0.5, 1]               {"x": [0.5, 1], "scale": 2}
    answer     {"y": [0.5]}           {"y": [0.5], "prediction": {"label": …, "probability": …}}

A line is what an element of `instances` is in TensorFlow Serving's JSON: a bare value where the
model has one input, or an object of names; `{"b64": "…"}` stands for bytes and for a picture. An
answer has one line for each line of its request. Empty lines are passed over, but are an error
where `Content.line_for_line` is set.

The lines are read as the elements of one list, which a reader of C does. What is no row on its own
line is found by the number of rows, and only then are the lines read one by one.
"""

from __future__ import annotations

from typing import Any

import orjson

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.empty_lines import check_line_for_line
from batcher.codecs.formats.json_documents import inputs_of, pixels_of
from batcher.codecs.formats.json_lists import listable
from batcher.codecs.formats.json_text import from_json, with_json
from batcher.codecs.formats.predictions import predictions
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return True: JSON holds any tensors."""
    return True


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in the lines of the body.

    Raises:
        DecodingError: a line is not JSON or must not be empty, or a picture cannot be read.
        InvalidInput: a line is no row of the model, or a value does not fit its input.
        TooLarge: there are more rows, bytes or pixels than the limits allow.
    """
    lines = _lines(content)
    count = lines.count(b"\n") + 1
    if not lines:
        raise DecodingError("body: expected at least one line of JSON; got none")
    first = spec.required[0].name
    content.limits.check(count, 0, first)
    document = b"[%b]" % lines.replace(b"\n", b",")
    try:
        inputs = _read(document, content, spec)
    except DecodingError:
        _check_lines(lines)
        raise
    if len(inputs[first]) != count:
        _check_lines(lines)
    return inputs


def _read(document: bytes, content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in a list of rows; raises as `decode`."""
    max_pixels = pixels_of(document, spec, content.max_image_pixels)

    def read(rows: Any) -> dict[str, Array]:
        document = {"instances": rows}
        return inputs_of(document, spec, content.limits, max_pixels, content.files)

    return with_json(document, read)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return an object of the outputs for each row, with `prediction` for a model with labels."""
    columns: dict[str, Any] = {
        tensor.name: listable(response.outputs[tensor.name], tensor) for tensor in spec.outputs
    }
    if best := predictions(response, spec):
        columns["prediction"] = best
    names = list(columns)
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    lines = bytearray()
    for row in zip(*columns.values(), strict=True):
        # orjson gives each line a kilobyte at least: a list of all lines would be a hundred times
        # as large as the answer
        lines += orjson.dumps(dict(zip(names, row, strict=True)), option=option)
    return memoryview(lines)


def _lines(content: Content) -> bytes:
    """Return the lines that are not empty, with one line feed between them.

    Raises DecodingError: a line is empty where each must be a row.
    """
    text = bytes(content.text())
    if content.line_for_line:
        check_line_for_line(text)
    text = text.replace(b"\r", b"\n").strip(b"\n")
    while b"\n\n" in text:
        text = text.replace(b"\n\n", b"\n")
    return text


def _check_lines(lines: bytes) -> None:
    """Check that each line is JSON by itself; raises DecodingError, which names the line."""
    start = 0
    for number in range(1, lines.count(b"\n") + 2):
        end = lines.find(b"\n", start)
        line = lines[start : len(lines) if end < 0 else end]
        try:
            from_json(line)
        except DecodingError as err:
            raise DecodingError(f"line {number}: {err}") from err
        start = end + 1
