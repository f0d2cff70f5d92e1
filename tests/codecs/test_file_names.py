"""Formats by the names of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.codecs.file_names import format_of_file
from batcher.errors import UnsupportedMediaType


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
    ],
)
def test_an_extension_stands_for_a_format_in_either_case(name: str, media_type: str) -> None:
    assert format_of_file(Path("folder") / name).media_type == media_type


@pytest.mark.parametrize("name", ["a.npz", "a.csv.gz", "a.html", "json", "a."])
def test_other_files_are_refused_by_their_name(name: str) -> None:
    with pytest.raises(
        UnsupportedMediaType, match=rf"{name}: expected a file named \.json, .*; got '"
    ):
        format_of_file(Path(name))
