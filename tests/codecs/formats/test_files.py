"""A text as a whole body: what is not in its charset is refused."""

from __future__ import annotations

from codecs import BOM_UTF8

import pytest

from batcher.codecs.content import Content
from batcher.codecs.formats import files
from batcher.errors import DecodingError
from tests.support.codec_inputs import one_input

TEXT = one_input("BYTES", ())


def decode(body: bytes | memoryview, **parameters: str) -> list[bytes]:
    row: list[bytes] = files.decode_text(Content(body, "text/plain", parameters), TEXT)[
        "x"
    ].tolist()
    return row


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"gr\xf6\xdfer", "byte 0xf6 at offset 2"),
        (b"\xff", "byte 0xff at offset 0"),
        ("ä".encode()[:1], "byte 0xc3 at offset 0"),
        (BOM_UTF8 + b"ab\x80", "byte 0x80 at offset 5"),
        (memoryview(b"ok\xed\xa0\x80"), "byte 0xed at offset 2"),
    ],
)
@pytest.mark.parametrize("parameters", [{}, {"charset": "UTF-8"}, {"charset": "utf8"}])
def test_text_that_is_not_utf_8_is_refused_with_the_place_and_the_mend(
    body: bytes, place: str, parameters: dict[str, str]
) -> None:
    with pytest.raises(DecodingError, match=rf"expected text in UTF-8; got {place}: .*charset="):
        decode(body, **parameters)


@pytest.mark.parametrize("charset", ["latin-1", "windows-1252", "iso-8859-15"])
def test_the_same_bytes_are_text_in_the_charset_that_is_named(charset: str) -> None:
    assert decode(b"gr\xf6\xdfer", charset=charset) == ["größer".encode()]


def test_text_is_kept_as_it_is_without_a_byte_order_mark() -> None:
    assert decode("größer".encode()) == ["größer".encode()]
    assert decode(BOM_UTF8 + b"ab") == [b"ab"]


def test_bytes_of_another_type_are_nobodys_text() -> None:
    content = Content(b"\xff\x00", "application/pdf")
    assert files.decode(content, TEXT)["x"].tolist() == [b"\xff\x00"]
