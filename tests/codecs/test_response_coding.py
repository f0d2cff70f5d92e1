"""Which content coding an answer gets, and that it can be undone."""

from __future__ import annotations

import gzip
import zlib

import pytest

from batcher.codecs.response_coding import compress, response_coding


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("deflate, gzip", "gzip"),
        ("deflate;q=1, gzip;q=0.5", "deflate"),
        ("gzip;q=0", ""),
        ("gzip; q=0.2, identity; q=0.9", ""),
        ("*", "gzip"),
        ("gzip;q=0, *", "deflate"),
        ("identity", ""),
        ("br", ""),
        ("gzip;q=nonsense", ""),
        ("gzip;level=1", "gzip"),
        (",;,", ""),
    ],
)
def test_the_most_wanted_coding_is_taken(accept: str, coding: str) -> None:
    assert response_coding(accept) == coding


def test_both_codings_can_be_undone() -> None:
    assert gzip.decompress(compress(b"abc" * 100, "gzip")) == b"abc" * 100
    assert zlib.decompress(compress(b"abc" * 100, "deflate")) == b"abc" * 100
