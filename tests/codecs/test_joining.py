"""Joining buffers: what `bytes.join` gives, in memory of its own."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.codecs.joining import LARGE_BYTES, joined


@pytest.mark.parametrize("size", [3, LARGE_BYTES])
def test_pieces_of_any_size_are_joined_in_order(size: int) -> None:
    pieces = (b"head", memoryview(b"a" * size), b"", b"tail")
    assert joined(pieces) == b"".join(pieces)


def test_a_large_buffer_is_copied_even_if_it_is_alone() -> None:
    array = np.zeros(LARGE_BYTES, np.uint8)
    body = joined((array.data,))
    array[:] = 1
    assert body == bytes(LARGE_BYTES)
