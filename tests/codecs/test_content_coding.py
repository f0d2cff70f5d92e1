"""Undoing gzip and deflate piece by piece, never beyond the limit."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content_coding import BodyDecoder, Identity, body_decoder, plain_body
from batcher.errors import DecodingError, TooLarge, UnsupportedMediaType
from tests.support.codec_inputs import MIB, damaged, python_memory_below

Encode = Callable[[bytes], bytes]


def raw_deflate(data: bytes, level: int = 6) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


CODINGS: dict[str, tuple[str, Encode]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "gzip, stored": ("gzip", lambda data: gzip.compress(data, 0)),
    "deflate as zlib": ("deflate", zlib.compress),
    "deflate as zlib, small window": ("deflate", lambda data: zlib.compress(data, wbits=9)),
    "raw deflate": ("deflate", raw_deflate),
    "raw deflate, stored": ("deflate", lambda data: raw_deflate(data, 0)),
}
every_coding = pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    """Return `body` cut at some places, empty pieces included."""
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:stop] for start, stop in pairwise(places)]


def undone(decoder: BodyDecoder, parts: list[bytes]) -> bytes:
    for part in parts:
        decoder.feed(part)
    return bytes(plain_body(decoder.finish()))


@every_coding
@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_a_body_comes_back_however_it_is_cut(
    coding: str, encode: Encode, data: bytes, cuts: list[int]
) -> None:
    assert undone(body_decoder(coding, 2000), pieces(encode(data), cuts)) == data


@every_coding
def test_a_body_comes_back_byte_by_byte(coding: str, encode: Encode) -> None:
    data = b"abc" * 500
    assert undone(body_decoder(coding, len(data)), [bytes([byte]) for byte in encode(data)]) == data


@pytest.mark.parametrize("header", ["", "identity", " Identity ", "IDENTITY"])
@given(data=st.binary(max_size=100), cuts=st.lists(st.integers(0, 100), max_size=4))
def test_a_body_without_a_coding_stays_as_it_is(header: str, data: bytes, cuts: list[int]) -> None:
    assert undone(body_decoder(header, 100), pieces(data, cuts)) == data


@pytest.mark.parametrize("header", ["GZIP", " gzip ", "X-GZip"])
def test_the_name_of_a_coding_has_no_case(header: str) -> None:
    assert undone(body_decoder(header, 10), [gzip.compress(b"abc")]) == b"abc"


@pytest.mark.parametrize(
    "header", ["br", "zstd", "gzip, gzip", "deflate,gzip", "compress", "gzip;q=1", "é"]
)
def test_another_coding_is_refused_with_those_that_are_read(header: str) -> None:
    with pytest.raises(
        UnsupportedMediaType,
        match=f"Content-Encoding: expected gzip, deflate or identity; got '{header}'",
    ):
        body_decoder(header, 10)


@given(st.lists(st.binary(max_size=10), max_size=8), st.integers(0, 40))
def test_a_plain_body_is_refused_at_the_first_byte_over_the_limit(
    parts: list[bytes], limit: int
) -> None:
    decoder, taken = Identity(limit), 0
    for part in parts:
        if taken + len(part) > limit:
            with pytest.raises(TooLarge, match=f"body: expected at most {limit} bytes; got more"):
                decoder.feed(part)
            return
        decoder.feed(part)
        taken += len(part)
    assert decoder.finish() == b"".join(parts)


@every_coding
@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_body_up_to_the_limit_is_taken(coding: str, encode: Encode, size: int) -> None:
    assert undone(body_decoder(coding, 100), [encode(bytes(size))]) == bytes(size)


@every_coding
@given(cuts=st.lists(st.integers(0, 3000), max_size=8), size=st.integers(101, 1000))
def test_a_body_one_byte_over_the_limit_is_refused_however_it_is_cut(
    coding: str, encode: Encode, cuts: list[int], size: int
) -> None:
    with pytest.raises(
        TooLarge, match="body: expected at most 100 bytes after decompression; got more"
    ):
        undone(body_decoder(coding, 100), pieces(encode(b"ab" * size), cuts))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_a_bomb_is_refused_in_memory_of_the_order_of_the_limit(coding: str, piece: int) -> None:
    compressor = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join([*(compressor.compress(bytes(MIB)) for _ in range(64)), compressor.flush()])
    assert len(bomb) < MIB // 8
    parts = [bomb[start : start + piece] for start in range(0, len(bomb), piece)]
    with python_memory_below(4 * MIB), pytest.raises(TooLarge):
        undone(body_decoder(coding, MIB), parts)


@every_coding
def test_a_stream_that_is_cut_off_anywhere_is_refused_at_its_end(
    coding: str, encode: Encode
) -> None:
    body = encode(b"some words, some words and more words")
    for length in range(len(body)):
        decoder = body_decoder(coding, 1000)
        decoder.feed(body[:length])
        with pytest.raises(
            DecodingError, match=r"expected a whole (gzip|deflate) stream; got one that is cut off"
        ):
            decoder.finish()


@every_coding
@pytest.mark.parametrize("apart", [False, True])
def test_bytes_behind_the_end_are_refused(coding: str, encode: Encode, apart: bool) -> None:
    decoder = body_decoder(coding, 1000)
    parts = [encode(b"abc"), b"rest"] if apart else [encode(b"abc") + b"rest"]
    with pytest.raises(
        DecodingError,
        match=r"expected (gzip; got bytes that are not|one deflate stream; got bytes behind)",
    ):
        undone(decoder, parts)


@given(
    words=st.lists(st.binary(max_size=30), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=4),
)
def test_gzip_of_several_streams_is_their_bodies_one_behind_the_other(
    words: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(map(gzip.compress, words))
    assert undone(body_decoder("gzip", 1000), pieces(body, cuts)) == b"".join(words)
    decoder = body_decoder("gzip", 1000)
    decoder.feed(body[:-1])
    with pytest.raises(DecodingError, match="cut off"):
        decoder.finish()


def test_the_streams_of_one_body_share_its_limit() -> None:
    with pytest.raises(TooLarge):
        undone(body_decoder("gzip", 100), [gzip.compress(b"a" * 60) * 2])


def test_a_flood_of_empty_streams_is_refused() -> None:
    with pytest.raises(DecodingError, match="at most 4096 gzip streams"):
        undone(body_decoder("gzip", 100), [gzip.compress(b"") * 5000])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bytes_in_no_coding_are_refused_with_the_coding_that_was_declared(coding: str) -> None:
    with pytest.raises(DecodingError, match=f"body: expected {coding}; got bytes that are not"):
        body_decoder(coding, 1000).feed(b'{"inputs": {"x": [[1, 2]]}}')


def test_a_flipped_bit_in_the_data_is_found_by_the_checksum() -> None:
    body = bytearray(gzip.compress(b"some words", 0))
    body[20] ^= 1
    with pytest.raises(DecodingError, match="expected gzip"):
        body_decoder("gzip", 100).feed(bytes(body))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@given(
    body=st.binary(max_size=200)
    | damaged([encode(b"some words " * 20) for _, encode in CODINGS.values()]),
    cuts=st.lists(st.integers(0, 300), max_size=3),
)
def test_any_bytes_are_undone_within_the_limit_or_refused(
    coding: str, body: bytes, cuts: list[int]
) -> None:
    try:
        assert len(undone(body_decoder(coding, 500), pieces(body, cuts))) <= 500
    except (DecodingError, TooLarge) as err:
        refusal = str(err)
    else:
        refusal = "none"
    assert refusal
