"""Media types by the names of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.codecs.file_names import media_type_of_file


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.json", "application/json"),
        ("a.b.NPY", "application/x-npy"),
        ("a.msgpack", "application/msgpack"),
        ("a.mpk", "application/msgpack"),
        ("a.bin", "application/octet-stream"),
        ("a.csv", "text/csv"),
        ("a.png", "image/png"),
        ("a.JPG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.bmp", "image/bmp"),
        ("a.jsonl", "application/jsonlines"),
        ("a.txt", "text/plain"),
        ("a.pdf", "application/pdf"),
    ],
)
def test_an_extension_stands_for_a_type_in_either_case(name: str, media_type: str) -> None:
    assert media_type_of_file(Path("folder") / name) == media_type


@pytest.mark.parametrize("name", ["a.npz", "a.unheard-of", "json", "a."])
def test_an_extension_that_nobody_knows_stands_for_plain_bytes(name: str) -> None:
    assert media_type_of_file(Path(name)) == "application/octet-stream"
