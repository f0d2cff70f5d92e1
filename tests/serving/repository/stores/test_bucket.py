"""What is made of the listings of buckets, and of files on their way into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.serving.repository.stores.bucket import (
    MAX_PARTS,
    _part_bytes,
    _text,
    _without_folders,
)
from batcher.serving.repository.stores.checksums import MIB, PART_SIZES
from batcher.serving.repository.stores.store import StoredFile


def test_empty_files_in_the_place_of_folders_are_no_files() -> None:
    sizes = {"m": 0, "m/1": 0, "m/1/sub": 0, "m/1/sub/f": 3, "m/1/g": 0, "m/1/sub2": 0}
    found = _without_folders({name: StoredFile(name, size, "") for name, size in sizes.items()})
    assert [file.name for file in found] == ["m/1/sub/f", "m/1/g", "m/1/sub2"]


@given(st.integers(0, PART_SIZES[-1] * MAX_PARTS))
def test_an_upload_has_no_more_parts_than_stores_take(size: int) -> None:
    assert _part_bytes(size) in PART_SIZES
    assert size <= _part_bytes(size) * MAX_PARTS
    if size <= 48 << 30:
        assert _part_bytes(size) == 5 * MIB


def test_without_credentials_the_error_says_so() -> None:
    asked = "Error performing PUT http://169.254.169.254/latest/api/token in 1ms - 403"
    assert _text(OSError(f"{asked}\n\nDebug source:\nx")).startswith(
        f"{asked}: the environment has no credentials"
    )


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ('Os { code: 111, message: "Connection refused", }', ": Connection refused"),
        ('Custom { error: "failed to lookup address", }', ": failed to lookup address"),
        ("source: reqwest::Error { source: TimedOut }", ": TimedOut"),
        (
            "error: InvalidCertificate(\n    UnknownIssuer,\n)",
            ": UnknownIssuer of the certificate: SSL_CERT_FILE names a file of authorities that "
            "are trusted",
        ),
        ("nothing that anybody knows", ""),
    ],
)
def test_why_no_connection_was_made_is_told(source: str, cause: str) -> None:
    text = "Error performing GET - HTTP error: error sending request"
    assert _text(OSError(f"{text}\n\nDebug source:\nGeneric {{ {source} }}")) == text + cause
    other = OSError(f"404 Not Found\n\nDebug source:\n{source}")
    assert _text(other) == "404 Not Found"
