"""Files in place of values, in JSON, its lines, and MessagePack."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from unittest.mock import Mock

import msgpack
import numpy as np
import pytest

from batcher.codecs.content import Content, Files
from batcher.codecs.format_table import JSON, JSON_LINES, MSGPACK, Format
from batcher.codecs.formats import references
from batcher.codecs.formats.references import Unfetched, is_long_text, may_name_files
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, ModelSpec
from batcher.errors import BatcherError, DecodingError, InvalidInput, TooLarge
from tests.codecs.formats.test_base64_pictures import b64
from tests.support.codec_inputs import echo_spec, encoded, picture_spec, pixels
from tests.support.models import model_spec, tensor

PICTURE = picture_spec((3, 4, 6), dtype="UINT8", scale=1.0)
PICTURES = [pixels(channels=3), pixels(channels=3)[::-1].copy()]
RIGHT = np.stack([picture.transpose(2, 0, 1) for picture in PICTURES])
NAME = PICTURE.inputs[0].name
MIXED = echo_spec(PICTURE.inputs[0], tensor("note", "BYTES", ()))
TEXT = model_spec((tensor("text", "BYTES", (1,)),))
NUMBERS = model_spec()


def npy(array: Any) -> bytes:
    file = BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


ROWS = np.arange(8, dtype="<f4").reshape(2, 4)
CONTENTS = {
    "s3://p/0": encoded(PICTURES[0]),
    "s3://p/1": encoded(PICTURES[1]),
    "s3://p/rows.npy": npy(ROWS),
    "s3://p/row.npy": npy(ROWS[1]),
    "s3://p/one.npy": npy(ROWS[1:]),
    "s3://p/wide.npy": npy(ROWS.astype("<f8")),
    "s3://p/rows.json": ROWS.tolist().__repr__().encode(),
    "s3://p/row.json": b" [4, 5, 6, 7]",
    "s3://p/note": b"\xff a note",
    "s3://p/long.json": json.dumps([[0.5] * 4] * 20_000).encode(),
}
FILES = Files(CONTENTS, 1 << 20)


def ref(name: str) -> dict[str, str]:
    return {"ref": f"s3://p/{name}"}


def decode(
    document: Any,
    spec: ModelSpec = NUMBERS,
    form: Format = JSON,
    files: Files | None = FILES,
    **more: Any,
) -> dict[str, Array]:
    if form is JSON_LINES:
        body = b"\n".join(json.dumps(row).encode() for row in document["instances"])
    else:
        body = msgpack.packb(document) if form is MSGPACK else json.dumps(document).encode()
    assert may_name_files(body)
    return form.decode(Content(body, form.media_type, files=files, **more), spec)


LAYOUTS: list[Any] = [
    {"instances": [ref("0"), ref("1")]},
    {"instances": [{NAME: ref("0")}, {NAME: ref("1")}]},
    {"inputs": [ref("0"), ref("1")]},
    {"inputs": {NAME: [ref("0"), ref("1")]}},
]
FORMS = pytest.mark.parametrize("form", [JSON, MSGPACK, JSON_LINES], ids=lambda form: form.title)


@FORMS
@pytest.mark.parametrize("document", LAYOUTS, ids=range(len(LAYOUTS)))
def test_pictures_are_rows_in_every_layout(document: Any, form: Format) -> None:
    if form is JSON_LINES and "inputs" in document:
        pytest.skip("lines are rows")
    assert np.array_equal(decode(document, PICTURE, form)[NAME], RIGHT)


@pytest.mark.parametrize("inputs", [ref("0"), {NAME: ref("0")}])
def test_a_picture_alone_is_a_column_of_one_row(inputs: Any) -> None:
    assert np.array_equal(decode({"inputs": inputs}, PICTURE)[NAME], RIGHT[:1])


def test_pictures_stand_beside_base64_and_numbers_and_texts() -> None:
    rows: list[Any] = [
        {NAME: ref("0"), "note": ref("note")},
        {NAME: b64(CONTENTS["s3://p/1"]), "note": "as text"},
        {NAME: RIGHT[1].tolist(), "note": "x"},
    ]
    inputs = decode({"instances": rows}, MIXED)
    assert np.array_equal(inputs[NAME], RIGHT[[0, 1, 1]])
    assert inputs["note"].tolist() == [b"\xff a note", b"as text", b"x"]
    column = {NAME: ref("0"), "note": [ref("note")]}
    assert np.array_equal(decode({"inputs": column}, MIXED)[NAME], RIGHT[:1])


@pytest.mark.parametrize("name", ["rows.npy", "rows.json"])
def test_an_array_is_all_rows_of_its_column(name: str) -> None:
    assert np.array_equal(decode({"inputs": {"x": ref(name)}})["x"], ROWS)
    assert np.array_equal(decode({"inputs": ref(name)}, form=MSGPACK)["x"], ROWS)


@pytest.mark.parametrize("name", ["row.npy", "one.npy", "row.json"])
def test_an_array_may_be_one_row_beside_others(name: str) -> None:
    expected = ROWS[[1, 0]]
    assert np.array_equal(decode({"inputs": {"x": [ref(name), ref(name)]}})["x"], ROWS[[1, 1]])
    assert np.array_equal(decode({"instances": [ref(name), ROWS[0].tolist()]})["x"], expected)


def test_bytes_are_taken_as_they_are() -> None:
    assert decode({"inputs": {"text": ref("note")}}, TEXT)["text"].tolist() == [[b"\xff a note"]]
    rows = decode({"instances": [ref("note"), ref("row.json")]}, TEXT)["text"]
    assert rows.tolist() == [[b"\xff a note"], [b" [4, 5, 6, 7]"]]


def test_a_long_text_is_read_piece_by_piece() -> None:
    assert decode({"inputs": {"x": ref("long.json")}})["x"].shape == (20_000, 4)
    assert is_long_text(CONTENTS["s3://p/long.json"], 1 << 18)
    assert not is_long_text(CONTENTS["s3://p/0"], 1)


def test_before_files_are_there_their_addresses_are_told() -> None:
    with pytest.raises(Unfetched) as unfetched:
        decode(LAYOUTS[1], PICTURE, files=Files(None, 1))
    assert unfetched.value.addresses == ["s3://p/0", "s3://p/1"]


def test_a_name_that_stands_for_no_file_is_what_it_was() -> None:
    spec = model_spec((tensor("ref", "BYTES", ()),))
    assert decode({"instances": [{"ref": "a"}]}, spec)["ref"].tolist() == [b"a"]
    assert decode({"inputs": {"ref": ["a"]}}, spec)["ref"].tolist() == [b"a"]
    inputs = decode({"inputs": {"ref": ref("note")}}, spec)
    assert inputs["ref"].tolist() == [b"\xff a note"]


@pytest.mark.parametrize("files", [None, FILES])
def test_other_objects_are_refused_with_files_and_without(files: Files | None) -> None:
    for wrong in ({"ref": 1}, {"ref": "s3://p/0", "x": 1}, {"ref": ["s3://p/0"]}):
        with pytest.raises(InvalidInput):
            decode({"inputs": {"x": [wrong]}}, files=files)


@pytest.mark.parametrize(
    ("inputs", "spec", "kind", "says"),
    [
        ({NAME: ref("note")}, PICTURE, DecodingError, "input 'x', 's3://p/note': expected a PNG"),
        ({"x": ref("note")}, NUMBERS, DecodingError, "'s3://p/note': expected a file of .npy, or"),
        ({"x": [ref("rows.npy")]}, NUMBERS, InvalidInput, "expected one row; got 2"),
        ({"x": ref("0")}, NUMBERS, DecodingError, "expected a file of .npy"),
    ],
)
def test_an_error_names_input_and_file(
    inputs: Any, spec: ModelSpec, kind: type[BatcherError], says: str
) -> None:
    with pytest.raises(kind, match=says.replace(".", r"\.")):
        decode({"inputs": inputs}, spec)


def test_pixels_of_all_pictures_are_counted_before_one_is_decoded() -> None:
    few = Files(CONTENTS, 24)
    assert len(decode(LAYOUTS[0], PICTURE, files=few)[NAME]) == 2
    many = {"instances": [ref("0")] * 100}
    with pytest.raises(TooLarge, match="pixels in one request"):
        decode(many, PICTURE, files=few)
    with pytest.raises(TooLarge, match="those of 1 rows"):
        decode({"inputs": {"x": ref("long.json")}}, limits=DecodingLimits(1, 1 << 30))


@pytest.mark.parametrize("others", [[], [[0, 1, 2, 3]]], ids=["files", "beside_a_list"])
@pytest.mark.parametrize("name", ["row.npy", "row.json"])
def test_a_file_that_is_named_often_is_read_once_and_counted_each_time(
    name: str, others: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Mock(side_effect=references.rows_of_file)
    monkeypatch.setattr(references, "rows_of_file", read)
    document = {"instances": [ref(name)] * 10 + others}
    with pytest.raises(TooLarge, match="144 bytes"):
        decode(document, limits=DecodingLimits(100, 9 * 16 - 1))
    read.assert_called_once()
    with pytest.raises(TooLarge, match=f"{10 + len(others)} rows"):
        decode(document, limits=DecodingLimits(9, 1 << 20))
    right = decode(document, limits=DecodingLimits(11, 11 * 16))["x"]
    assert len(right) == 10 + len(others)
    assert read.call_count == 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"ref"', True), (b'{"\\u0072ef"', True), (b"\xa3ref", True), (b'{"x": [[1, 2]]}', False)],
)
def test_a_body_without_the_name_is_not_looked_at(body: bytes, expected: bool) -> None:
    assert may_name_files(body) is expected
