"""Pictures as `{"b64": …}` in TensorFlow Serving's JSON: alone, and beside other values."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batcher.codecs.formats.json_text import LARGE_BYTES
from batcher.codecs.tf_serving import decode
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, ModelSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge
from tests.support.codec_inputs import echo_spec, encoded, picture_spec, pixels
from tests.support.models import tensor

SPEC = picture_spec((3, 4, 6), dtype="UINT8", scale=1.0)
PICTURES = [pixels(channels=3), pixels(channels=3)[::-1].copy(), pixels(channels=3)[:, ::-1].copy()]
BODIES = [encoded(picture) for picture in PICTURES]
RIGHT = np.stack([picture.transpose(2, 0, 1) for picture in PICTURES])
MIXED = echo_spec(SPEC.inputs[0], tensor("scale", "FP32", ()), tensor("note", "BYTES", ()))


def b64(body: bytes) -> dict[str, str]:
    """Return `body` as TensorFlow Serving's clients write it."""
    return {"b64": base64.b64encode(body).decode()}


def inputs_of(
    document: dict[str, Any], spec: ModelSpec = SPEC, **limits: Any
) -> tuple[dict[str, Array], bool]:
    """Return inputs and layout of `document`."""
    return decode(json.dumps(document).encode(), spec, **limits)


NAME = SPEC.inputs[0].name
LAYOUTS: list[Callable[[list[Any]], dict[str, Any]]] = [
    lambda rows: {"instances": rows},
    lambda rows: {"instances": [{NAME: row} for row in rows]},
    lambda rows: {"instances": [rows[0], *({NAME: row} for row in rows[1:])]},
    lambda rows: {"inputs": rows},
    lambda rows: {"inputs": {NAME: rows}},
    lambda rows: {"signature_name": "serving_default", "inputs": {NAME: rows}},
]
LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=range(len(LAYOUTS)))


@LAYOUT
def test_pictures_are_rows_in_every_layout(layout: Callable[..., dict[str, Any]]) -> None:
    document = layout([b64(body) for body in BODIES])
    inputs, by_row = inputs_of(document)
    assert by_row is ("instances" in document)
    assert list(inputs) == [NAME]
    assert np.array_equal(inputs[NAME], RIGHT)


@LAYOUT
@pytest.mark.parametrize("name", ['"\\u0062\\u0036\\u0034"', '"b6\\u0034"'])
def test_codes_may_stand_for_the_letters_of_b64(
    layout: Callable[..., dict[str, Any]], name: str
) -> None:
    document = json.dumps(layout([b64(body) for body in BODIES])).replace('"b64"', name)
    assert np.array_equal(decode(document.encode(), SPEC)[0][NAME], RIGHT)


def test_codes_in_other_texts_change_nothing() -> None:
    document = json.dumps({"inputs": {NAME: RIGHT.tolist()}, "note": "\u00e9"})
    assert np.array_equal(decode(document.encode(), SPEC)[0][NAME], RIGHT)


@pytest.mark.parametrize("columns", [b64(BODIES[0]), {NAME: b64(BODIES[0])}])
def test_a_picture_in_place_of_a_column_is_the_only_row(columns: Any) -> None:
    inputs, by_row = inputs_of({"inputs": columns})
    assert not by_row
    assert np.array_equal(inputs[NAME], RIGHT[:1])


@LAYOUT
def test_numbers_and_pictures_may_be_rows_of_one_request(
    layout: Callable[..., dict[str, Any]],
) -> None:
    rows = [b64(BODIES[0]), RIGHT[1].tolist(), b64(BODIES[2])]
    assert np.array_equal(inputs_of(layout(rows))[0][NAME], RIGHT)


@LAYOUT
def test_a_large_document_is_read_piece_by_piece_to_the_same(
    layout: Callable[..., dict[str, Any]],
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), "u1")
    spec = picture_spec((3, -1, -1), dtype="UINT8", scale=1.0)
    rows = [b64(encoded(noise)), noise.transpose(2, 0, 1).tolist(), b64(encoded(noise))]
    document = layout(rows)
    assert len(json.dumps(document)) > LARGE_BYTES
    found = inputs_of(document, spec)[0][NAME]
    assert found.shape == (3, 3, 200, 300)
    assert all(np.array_equal(row, noise.transpose(2, 0, 1)) for row in found)


@pytest.mark.parametrize("by_row", [True, False])
def test_pictures_stand_beside_other_inputs(by_row: bool) -> None:
    rows = [
        {NAME: b64(body), "scale": index, "note": b64(b"\xff")} for index, body in enumerate(BODIES)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    inputs, _ = inputs_of({"instances": rows} if by_row else {"inputs": columns}, MIXED)
    assert np.array_equal(inputs[NAME], RIGHT)
    assert inputs["scale"].tolist() == [0, 1, 2]
    assert inputs["note"].tolist() == [b"\xff"] * 3


def test_a_picture_of_any_declared_format_is_taken() -> None:
    for fmt in ("PNG", "BMP"):
        rows = [b64(encoded(PICTURES[0], fmt))]
        assert np.array_equal(inputs_of({"instances": rows})[0][NAME], RIGHT[:1])


def test_base64_may_have_lines_and_lack_its_padding() -> None:
    text = base64.encodebytes(BODIES[0]).decode()
    assert "\n" in text
    for written in (text, text.rstrip("\n="), f" {text}"):
        assert np.array_equal(inputs_of({"instances": [{"b64": written}]})[0][NAME], RIGHT[:1])


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (b64(BODIES[0][:60]), DecodingError, "row 1: picture: expected a whole PNG"),
        (b64(b"no picture"), DecodingError, "row 1: body: expected a PNG"),
        (b64(b""), DecodingError, "row 1"),
        ({"b64": "!!"}, InvalidInput, "row 1: b64: expected base64"),
        ({"b64": "A"}, InvalidInput, "row 1: b64: expected base64"),
        ({"b64": "ä"}, InvalidInput, "row 1: b64: expected base64"),
        ({"b64": 7}, InvalidInput, r'"instances"\[1\]: expected an object of'),
        ({"b64": "AA", "more": 1}, InvalidInput, r'"instances"\[1\]: expected an object of'),
        ("text", InvalidInput, "expected"),
        (b64(encoded(pixels(9, 9))), InvalidInput, "rows of one shape"),
        ([[1]], InvalidInput, "rows of one shape"),
    ],
    ids=range(11),
)
def test_a_row_that_is_wrong_is_named(wrong: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        inputs_of(
            {"instances": [b64(BODIES[0]), wrong]},
            picture_spec((3, -1, -1), dtype="UINT8", scale=1.0),
        )


def test_pixels_of_a_request_are_counted_together_before_any_is_decoded() -> None:
    with pytest.raises(TooLarge, match="row 0: picture: expected at most 23 pixels"):
        inputs_of({"instances": [b64(BODIES[0])]}, max_image_pixels=23)
    broken_late = [*[b64(BODIES[0])] * 9, b64(BODIES[0][:-30])]
    with pytest.raises(TooLarge, match="expected at most 192 pixels in one request; got 240"):
        inputs_of({"instances": broken_late}, max_image_pixels=24)


def test_more_rows_than_the_queue_could_hold_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(TooLarge, match="at most 2 rows"):
        inputs_of({"instances": [b64(BODIES[0][:60])] * 3}, limits=DecodingLimits(2, 1 << 30))


def test_a_model_without_pictures_takes_base64_as_bytes_alone() -> None:
    text = echo_spec(tensor("x", "BYTES", ()))
    assert inputs_of({"instances": [b64(b"\x00\xff"), "plain"]}, text)[0]["x"].tolist() == [
        b"\x00\xff",
        b"plain",
    ]
    with pytest.raises(InvalidInput):
        inputs_of({"instances": [b64(b"1")]}, echo_spec(tensor("x", "FP32", (2,))))


@pytest.mark.parametrize("document", [{"inputs": {}, "instances": [b64(b"")]}, {"b64": "AA"}])
def test_a_document_of_neither_layout_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        inputs_of(document)


def test_a_picture_for_an_input_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(InvalidInput, match=f"expected inputs '{NAME}'; got 'y'"):
        inputs_of({"inputs": {"y": [b64(BODIES[0])]}})
