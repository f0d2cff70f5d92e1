"""Addresses of files: one reading each, and below the operator's prefixes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.references import InputSources, parse_reference
from batcher.errors import InvalidInput

SOURCES = InputSources(
    ["s3://photos/cats", "https://example.com/photos/", "https://example.com:8443/", "gs://whole"],
    ["http://10.0.0.5:9000/in/", "http://photos.internal/"],
)

READ = {
    "s3://photos/cats/1.jpg": "s3://photos/cats/1.jpg",
    "s3://photos/cats": "s3://photos/cats",
    "s3://photos/cats/a b/über.jpg": "s3://photos/cats/a b/über.jpg",
    "gs://whole/any/thing": "gs://whole/any/thing",
    "https://example.com/photos/a%20b.jpg": "https://example.com:443/photos/a%20b.jpg",
    "https://example.com:443/photos/%61.jpg": "https://example.com:443/photos/a.jpg",
    "https://example.com/photos/%C3%BC.jpg": "https://example.com:443/photos/%C3%BC.jpg",
    "https://example.com:8443/x": "https://example.com:8443/x",
    "http://10.0.0.5:9000/in/1": "http://10.0.0.5:9000/in/1",
}
REFUSED = (
    "",
    "cats/1.jpg",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://example.com/photos/1",
    "S3://photos/cats/1.jpg",
    "s3:/photos/cats/1.jpg",
    "s3://photos/dogs/1.jpg",
    "s3://photos/cats2/1.jpg",
    "s3://photos/cats/",
    "s3://photos/cats//1.jpg",
    "s3://photos/cats/../dogs/1.jpg",
    "s3://photos/cats/./1.jpg",
    "s3://photos/cats/.. /1.jpg",
    "s3://photos/cats/%2e%2e/dogs/1.jpg",
    "s3://photos/cats/..\\dogs",
    "s3://photos/cats/1.jpg?versionId=2",
    "s3://photos/cats/1.jpg#x",
    "s3://photos/cats/\uff0e\uff0e/1.jpg",
    "s3://photos/cats/a\u2024\u2024\uff0fb",
    "s3://photos/cats/a\u202eb",
    "s3://photos/cats/a\x00b",
    "s3://photos/cats/a\nb",
    "s3://photos/cats/\ud800",
    "s3://key:secret@photos/cats/1.jpg",
    "s3://photos:80/cats/1.jpg",
    "s3://PHOTOS/cats/1.jpg",
    "https://example.com/photos/../private",
    "https://example.com/photos/%2e%2e/private",
    "https://example.com/photos/..%2fprivate",
    "https://example.com/photos/..;/private",
    "https://example.com/photos/%252e%252e/private",
    "https://example.com/photos/%5c..",
    "https://example.com/photos/%00",
    "https://example.com/photos/%zz",
    "https://example.com/photos/%ff",
    "https://example.com/photos/a b",
    "https://example.com/photos/ü.jpg",
    "https://example.com/photos/1?w=224",
    "https://example.com\\@evil.example/photos/1",
    "https://example.com@evil.example/photos/1",
    "https://user:pass@example.com/photos/1",
    "https://example.com:444/photos/1",
    "https://example.com:08443/photos/1",
    "https://example.com:99999/photos/1",
    "https://example.com./photos/1",
    "https://EXAMPLE.com/photos/1",
    "https://ex\u0430mple.com/photos/1",
    "https://example.com.evil.example/photos/1",
    "https:///photos/1",
    "http://example.com/photos/1",
    "http://0x0a000005:9000/in/1",
    "http://10.5:9000/in/1",
    "http://167772165:9000/in/1",
    "http://012.0.0.5:9000/in/1",
    "http://[::ffff:10.0.0.5]:9000/in/1",
    f"s3://photos/cats/{'a' * 2048}",
)


@pytest.mark.parametrize("text", READ)
def test_an_address_below_a_prefix_is_read_in_one_form(text: str) -> None:
    reference, is_private = SOURCES.find(text)
    assert reference.address == READ[text]
    assert is_private is text.startswith("http://")


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_what_is_outside_or_could_be_read_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^expected .*; got ") as refused:
        SOURCES.find(text)
    assert "secret" not in str(refused.value)
    assert "pass@" not in str(refused.value)


@given(st.text(alphabet="s3://photos/cats.%2e\\@:;? \uff0e", max_size=40))
def test_whatever_is_read_lies_below_the_prefix_and_is_read_alike_again(end: str) -> None:
    try:
        reference, _ = SOURCES.find(f"s3://photos/cats/{end}")
    except InvalidInput:
        return
    assert reference.host == "photos"
    assert reference.segments[0] == "cats"
    assert not {"", ".", ".."} & set(reference.segments)
    assert parse_reference(reference.address) == reference
