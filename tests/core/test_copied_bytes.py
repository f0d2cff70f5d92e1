"""Copies of buffers, small and large."""

from __future__ import annotations

from itertools import pairwise

import pytest

from batcher.core.copied_bytes import LARGE_BYTES, copied_bytes, joined_bytes


@pytest.mark.parametrize("size", [0, 1, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 7])
def test_a_copy_is_equal_and_of_its_own(size: int) -> None:
    original = bytearray(range(256)) * (size // 256 + 1)
    part = memoryview(original)[3 : 3 + size]
    copy = copied_bytes(part)
    expected = bytes(part)
    part[:] = bytes(len(part))
    assert type(copy) is bytes
    assert copy == expected
    assert hash(copy) == hash(expected)


@pytest.mark.parametrize("size", [9, LARGE_BYTES, LARGE_BYTES + 7])
def test_pieces_of_any_kind_are_joined_in_their_order(size: int) -> None:
    whole = (bytes(range(256)) * (size // 256 + 1))[:size]
    parts = [whole[begin:end] for begin, end in pairwise([0, 1, 1, 5, size - 3, size])]
    kinds = (bytes, memoryview, bytearray, bytes, memoryview)
    pieces = [kind(part) for kind, part in zip(kinds, parts, strict=True)]
    joined = joined_bytes(pieces)
    assert type(joined) is bytes
    assert joined == whole
    assert joined_bytes([]) == b""


def test_bytes_are_not_copied() -> None:
    original = bytes(LARGE_BYTES)
    assert copied_bytes(original) is original
