"""A form with a file, read while it arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.form_upload import MAX_FIELD_BYTES, FormUpload
from batcher.errors import ClientError, DecodingError


def part(name: str, content: bytes, filename: str = "") -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form_of(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


def read(body: bytes, size: int = 1 << 20) -> tuple[FormUpload, bytes]:
    found: list[bytes] = []
    form = FormUpload("B", ("purpose",), found.append)
    for start in range(0, len(body), size):
        form.feed(body[start : start + size])
    form.finish()
    return form, b"".join(found)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_a_file_is_the_same_however_it_arrives(content: bytes, size: int) -> None:
    body = form_of(part("purpose", b"batch"), part("file", content, "a.jsonl"))
    if b"\r\n--B" in content:
        return
    form, found = read(body, size)
    assert (found, form.filename, form.fields) == (content, "a.jsonl", {"purpose": "batch"})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form_of(part("purpose", b"batch")), "file: expected a file"),
        (form_of(part("file", b"1"), part("file", b"2")), "got several"),
        (form_of(part("other", b"1")), "expected the fields file, purpose; got 'other'"),
        (form_of(part("purpose", b"x" * (MAX_FIELD_BYTES + 1))), "purpose: expected at most"),
        (part("file", b"1"), "expected multipart/form-data"),
        (b"no form", "expected multipart/form-data"),
    ],
    ids=range(6),
)
def test_what_is_no_such_form_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ClientError, match=message):
        read(body)


def test_a_form_needs_a_boundary() -> None:
    with pytest.raises(DecodingError, match="boundary"):
        FormUpload("", (), lambda _: None)
