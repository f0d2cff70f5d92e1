"""`multipart/form-data`: files in fields, as browsers and curl send them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import multipart_files
from batcher.codecs.negotiation import media_type
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, ImageSpec, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput, TooLarge
from tests.support.codec_inputs import (
    MIB,
    damaged,
    decoded_or_refused,
    encoded,
    picture_spec,
    pixels,
    python_memory_below,
)
from tests.support.models import model_spec, tensor

SPEC = picture_spec((3, 4, 6))
PNG = encoded(pixels())
TWO = model_spec(
    inputs=(
        tensor("left", "FP32", (3, 4, 6), image=ImageSpec("RGB", 4, 6)),
        tensor("right", "FP32", (4, 6), image=ImageSpec("L", 4, 6)),
    )
)


def part(
    body: bytes,
    name: str | None = "x",
    filename: str | None = "a.png",
    content_type: str | None = "image/png",
) -> bytes:
    disposition = "Content-Disposition: form-data"
    disposition += f'; name="{name}"' if name is not None else ""
    disposition += f'; filename="{filename}"' if filename is not None else ""
    kind = f"\r\nContent-Type: {content_type}" if content_type is not None else ""
    return f"--edge\r\n{disposition}{kind}\r\n\r\n".encode() + body + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--edge--\r\n"


def decode(
    body: bytes, spec: ModelSpec = SPEC, header: str = "multipart/form-data; boundary=edge"
) -> dict[str, Array]:
    inputs = multipart_files.decode(Content(body, *media_type(header)), spec)
    check_inputs(spec, inputs)
    return inputs


def rows(pictures: Array) -> Array:
    return np.rint(pictures * 255).astype("u1")


def test_one_file_is_one_row() -> None:
    np.testing.assert_array_equal(
        rows(decode(form(part(PNG)))["x"]), pixels()[np.newaxis].transpose(0, 3, 1, 2)
    )


def test_several_files_are_rows_in_the_order_in_which_they_were_sent() -> None:
    shades = [np.full((4, 6, 3), shade, "u1") for shade in (30, 10, 20)]
    found = rows(
        decode(
            form(*[part(encoded(shade), filename=f"{i}.png") for i, shade in enumerate(shades)])
        )["x"]
    )
    assert found[:, 0, 0, 0].tolist() == [30, 10, 20]


def test_files_of_several_formats_share_a_request() -> None:
    shade = np.full((4, 6, 3), 128, "u1")
    parts = [
        part(encoded(shade, fmt), content_type=f"image/{fmt.lower()}")
        for fmt in ("PNG", "JPEG", "WEBP", "BMP")
    ]
    assert decode(form(*parts))["x"].shape == (4, 3, 4, 6)


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "IMAGE/PNG", "image/png; charset=binary", "application/octet-stream", "", None],
)
def test_the_format_of_a_file_may_be_named_or_found_out(content_type: str | None) -> None:
    assert decode(form(part(PNG, content_type=content_type)))["x"].shape == (1, 3, 4, 6)


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/jpg", "image/jpeg; q=1"])
def test_a_file_in_another_format_than_its_part_says_is_refused(content_type: str) -> None:
    with pytest.raises(DecodingError, match=r"expected JPEG, .*; got PNG"):
        decode(form(part(PNG, content_type=content_type)))


def test_each_input_has_its_own_field() -> None:
    inputs = decode(
        form(part(PNG, "right"), part(PNG, "left"), part(PNG, "right"), part(PNG, "left")), TWO
    )
    assert inputs["left"].shape == (2, 3, 4, 6)
    assert inputs["right"].shape == (2, 4, 6)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([part(PNG, "left")], "expected inputs 'left', 'right'; got 'left'"),
        (
            [part(PNG, "left"), part(PNG, "left"), part(PNG, "right")],
            "input 'right': expected 2 rows, as in 'left'; got 1",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(parts: list[bytes], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        decode(form(*parts), TWO)


@pytest.mark.parametrize(
    "header",
    [
        "multipart/form-data; boundary=edge",
        'multipart/form-data; boundary="edge"',
        "Multipart/Form-Data; charset=utf-8; Boundary=edge",
        "multipart/form-data;boundary=edge",
    ],
)
def test_the_boundary_is_found_however_it_is_written(header: str) -> None:
    assert decode(form(part(PNG)), header=header)["x"].shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    "header",
    ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""'],
)
def test_a_missing_boundary_is_refused(header: str) -> None:
    with pytest.raises(
        DecodingError, match="Content-Type: expected multipart/form-data with a boundary; got none"
    ):
        decode(form(part(PNG)), header=header)


@pytest.mark.parametrize(
    "header",
    [
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=" + "x" * 500,
        "multipart/form-data; boundary=\xe9dge",
        "multipart/form-data; boundary*=utf-8'en'%e2%82%ac",
        'multipart/form-data; boundary="ed ge\t"',
    ],
)
def test_another_boundary_than_the_bodys_is_refused(header: str) -> None:
    parameters = media_type(header)[1]
    assert (
        decoded_or_refused(multipart_files.decode, form(part(PNG)), SPEC, parameters=parameters)
        is None
    )


def test_a_boundary_in_the_extended_notation_of_rfc_2231_is_read_or_refused() -> None:
    parameters = media_type("multipart/form-data; boundary*=us-ascii'en'edge")[1]
    decoded_or_refused(multipart_files.decode, form(part(PNG)), SPEC, parameters=parameters)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (form(part(PNG, "photo")), "expected files in field 'x'; got field 'photo'"),
        (form(part(PNG, None)), "expected files in field 'x'; got field ''"),
        (
            form(part(b"5", filename=None, content_type=None)),
            "expected a PNG, JPEG, WebP or BMP picture; got something else",
        ),
        (form(part(PNG), part(b"5", "submit", None, None)), "got field 'submit'"),
        (form(), "expected files in field 'x'; got none"),
        (form(part(PNG, "y" * 5000)), ""),
    ],
)
def test_a_field_that_is_none_of_the_models_is_refused_with_its_name(
    body: bytes, complaint: str
) -> None:
    with pytest.raises((InvalidInput, DecodingError), match=complaint or "expected") as refusal:
        decode(body)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("filename", [None, "", "a", "a.bin"])
@pytest.mark.parametrize(
    "content_type", [None, "image/png", "IMAGE/PNG", "application/octet-stream", "text/plain"]
)
def test_a_part_is_a_picture_whatever_its_file_is_called(
    filename: str | None, content_type: str | None
) -> None:
    named, unnamed = decode(form(part(PNG))), decode(form(part(PNG, "x", filename, content_type)))
    np.testing.assert_array_equal(named["x"], unnamed["x"])


def test_a_file_that_is_no_picture_is_refused() -> None:
    with pytest.raises(
        DecodingError, match="expected a PNG, JPEG, WebP or BMP picture; got something else"
    ):
        decode(form(part(PNG), part(b"hello", content_type="text/plain")))


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(DecodingError, match="expected a picture; got an empty"):
        decode(form(part(b"")))


def test_a_file_over_the_limit_of_pixels_is_refused() -> None:
    content = Content(
        form(part(PNG)), *media_type("multipart/form-data; boundary=edge"), max_image_pixels=23
    )
    with pytest.raises(TooLarge, match="expected at most 23 pixels; got 6 x 4 = 24"):
        multipart_files.decode(content, SPEC)


@pytest.mark.parametrize("cut", [1, 4, 6, 20, len(PNG) // 2, len(PNG) + 40])
def test_a_body_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(DecodingError, match="expected multipart/form-data with boundary 'edge'"):
        decode(form(part(PNG))[: -2 - cut])


def test_more_parts_than_a_queue_could_hold_are_refused_in_little_memory() -> None:
    body = form(*[part(b"")] * (multipart_files.MAX_FILES + 1))
    with python_memory_below(20 * MIB), pytest.raises((TooLarge, DecodingError), match="4096"):
        decode(body)


def test_many_files_in_one_request_are_many_rows() -> None:
    assert len(decode(form(*[part(PNG)] * 200))["x"]) == 200


BODIES = [
    form(part(PNG)),
    form(part(PNG), part(encoded(pixels(), "BMP"), content_type="image/bmp")),
]


@given(damaged(BODIES))
def test_a_damaged_body_is_rows_or_refused(body: bytes) -> None:
    decoded_or_refused(multipart_files.decode, body, SPEC, parameters={"boundary": "edge"})


@given(st.binary(max_size=100), st.text(max_size=80))
def test_any_bytes_with_any_boundary_are_refused(body: bytes, boundary: str) -> None:
    assert (
        decoded_or_refused(multipart_files.decode, body, SPEC, parameters={"boundary": boundary})
        is None
    )


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_any_part_header_is_a_file_or_refused(line: str) -> None:
    body = b"--edge\r\n" + line.encode("latin-1") + b"\r\n\r\n" + PNG + b"\r\n--edge--\r\n"
    decoded_or_refused(multipart_files.decode, body, SPEC, parameters={"boundary": "edge"})


def test_it_carries_pictures_alone() -> None:
    assert multipart_files.carries(TWO.inputs)
    assert not multipart_files.carries((*TWO.inputs, tensor("age")))


def test_rows_are_counted_before_the_first_file_is_looked_at() -> None:
    header, limits = media_type("multipart/form-data; boundary=edge"), DecodingLimits(max_rows=99)
    content = Content(form(*[part(b"no picture")] * 100), *header, limits=limits)
    with pytest.raises(TooLarge, match=r"at most 99 rows .*; got at least 100 rows"):
        multipart_files.decode(content, SPEC)


def test_pixels_of_all_inputs_are_counted_together() -> None:
    header = media_type("multipart/form-data; boundary=edge")
    body = form(*[part(PNG, "left")] * 5, *[part(PNG, "right")] * 5)
    with pytest.raises(TooLarge, match="192 pixels in one request; got 240 in 10 pictures"):
        multipart_files.decode(Content(body, *header, max_image_pixels=24), TWO)


@pytest.mark.parametrize("before_border", [0, 1, 2, 5, 9, 60, 120])
def test_a_form_is_read_whole_wherever_its_pieces_end(before_border: int) -> None:
    """The parser gets 64 KiB at a time; boundaries and heads of parts may lie across the border."""
    first = part(PNG)
    padding = (1 << 16) - len(first) - before_border
    # What stands behind the end of a picture is passed over.
    padded = part(PNG + bytes(padding))
    inputs = decode(form(padded, part(PNG)))
    np.testing.assert_array_equal(inputs["x"][0], inputs["x"][1])
