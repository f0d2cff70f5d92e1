"""Values in files of memory: what one process writes, another reads, without a copy of buffers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content_coding import CodedBody
from batcher.workers.codec_process.values import file_of, read_value


def crossed(value: Any) -> Any:
    """Return `value` as the other side reads it."""
    fd = file_of(value)
    try:
        return read_value(fd)
    finally:
        os.close(fd)


@given(st.lists(st.binary(max_size=100), max_size=5), st.text(max_size=20))
def test_views_of_bytes_come_back(pieces: list[bytes], text: str) -> None:
    back, name = crossed(([memoryview(piece) for piece in pieces], text))
    assert [bytes(view) for view in back] == pieces
    assert name == text


@pytest.mark.parametrize("dtype", ["<f4", "<i8", "?", "<f2"])
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0, 4), (5, 3, 2)])
def test_arrays_come_back_in_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    back = crossed({"x": array, "y": array.T})
    assert back["x"].dtype == dtype
    np.testing.assert_array_equal(back["x"], array)
    np.testing.assert_array_equal(back["y"], array.T)


def test_a_large_array_is_no_copy_of_the_file() -> None:
    back = crossed(np.zeros(1000))
    assert not back.flags.owndata


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_bytes_elements_come_back_whatever_their_lengths(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    back = crossed(array.reshape(-1, 1))
    assert back.shape == (len(elements), 1)
    assert back.ravel().tolist() == elements


def test_objects_that_are_no_bytes_are_pickled() -> None:
    array = np.array(["a", b"b"], object)
    assert crossed(array).tolist() == ["a", b"b"]


def test_a_coded_body_crosses_as_it_was_sent() -> None:
    back = crossed(CodedBody("gzip", 10, memoryview(b"sent")))
    assert bytes(back.sent) == b"sent"
