"""What front and engine say to each other comes over as it was."""

from __future__ import annotations

from mmap import mmap
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from batcher import errors
from batcher.codecs.content_coding import CodedBody
from batcher.config.settings import ServerSettings
from batcher.core.ragged import ragged
from batcher.errors import BatcherError, MethodNotAllowed, ModelError, QueueFull
from batcher.frontends.link.arrays import INLINE_BYTES, read_arrays, write_arrays
from batcher.frontends.link.frames import FrameReader, frame_of
from batcher.frontends.link.messages import read_body, read_error, write_body, write_error
from batcher.workers.shared_memory.region import Lender, Reader

DTYPES = st.sampled_from(["?", "<u1", "<i4", "<i8", "<f2", "<f4", "<f8"])
NUMBERS = DTYPES.flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(max_dims=3, min_side=0))
)
TEXTS = st.lists(st.binary(max_size=20), min_size=1, max_size=5)
PLAIN = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
MESSAGES = st.lists(st.lists(PLAIN, max_size=4).map(tuple), min_size=1, max_size=6)


def both(size: int = 1 << 20) -> tuple[Lender, Reader]:
    memory = mmap(-1, size)
    return Lender(memory), Reader(memory)


def through(value: Any) -> Any:
    """Return `value` as it is at the other end."""
    (message,) = FrameReader().feed(frame_of((0, value)))
    return message[1]


@settings(max_examples=60, deadline=None)
@given(MESSAGES, st.data())
def test_messages_are_put_together_from_any_pieces(sent: list[Any], data: st.DataObject) -> None:
    stream, reader, found = b"".join(map(frame_of, sent)), FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == sent


def test_a_value_that_is_not_plain_is_refused_by_whoever_sends_it() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        frame_of((0, object()))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3), TEXTS)
def test_arrays_come_over_as_they_were(numbers: dict[str, np.ndarray], texts: list[bytes]) -> None:
    sent = {**numbers, "texts": np.array([*texts, b""], object)}
    sent["uneven"] = ragged([np.ones((2, 4), "<f4"), np.zeros((0, 4), "<f4")])
    lender, reader = both()
    found = read_arrays(through(write_arrays(sent, lender)), reader)
    assert found.keys() == sent.keys()
    for name, array in sent.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        for mine, theirs in zip(array.ravel(), found[name].ravel(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_large_array_lies_in_shared_memory_until_its_view_is_gone() -> None:
    large = np.arange(INLINE_BYTES, dtype="<f4")[::-1].reshape(4, -1)
    lender, reader = both()
    written = write_arrays({"x": large}, lender)
    assert len(frame_of((0, written))) < 100
    found = read_arrays(through(written), reader)
    np.testing.assert_array_equal(found["x"], large)
    assert lender.lent == 1
    del found
    (offset,) = reader.take_gone()
    lender.free(offset)
    assert lender.lent == 0


def test_a_large_array_for_which_there_is_no_room_comes_over_nevertheless() -> None:
    large = np.arange(INLINE_BYTES, dtype="<f4")
    lender, reader = both(1 << 12)
    found = read_arrays(through(write_arrays({"x": large}, lender)), reader)
    np.testing.assert_array_equal(found["x"], large)
    assert lender.lent == 0


def test_objects_that_are_not_bytes_are_refused() -> None:
    with pytest.raises(TypeError, match="expected objects that are bytes; got str"):
        write_arrays({"x": np.array(["a"], object)}, both()[0])


@pytest.mark.parametrize("size", [0, 5, 3 * INLINE_BYTES])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bodies_come_over_as_they_were(size: int, kind: Any) -> None:
    lender, reader = both()
    body = bytes(range(256)) * (size // 256 + 1)
    sent = kind(body[:size])
    assert bytes(read_body(through(write_body(sent, lender)), reader)) == body[:size]


def test_a_body_in_its_coding_comes_over_in_that_coding() -> None:
    lender, reader = both()
    limit = ServerSettings().max_body_bytes  # an int of a class that does not come over
    sent = CodedBody("gzip", limit, memoryview(b"not looked at"))
    found = read_body(through(write_body(sent, lender)), reader)
    assert isinstance(found, CodedBody)
    assert found.__reduce__() == sent.__reduce__()


def test_our_errors_come_over_with_all_that_clients_read() -> None:
    for sent in (
        QueueFull("no place", retry_after=7, public="full"),
        MethodNotAllowed("expected GET", ("GET", "HEAD")),
        ModelError("the model raised"),
    ):
        found = read_error(through(write_error(sent)))
        assert type(found) is type(sent)
        assert (str(found), vars(found)) == (str(sent), vars(sent))


def test_every_class_of_the_tree_comes_over() -> None:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, BatcherError):
            error = kind.__new__(kind, name)
            assert type(read_error(write_error(error))) is kind


def test_any_other_error_comes_over_in_words_with_its_stack() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            return "of the model's own"

    try:
        raise Odd
    except Odd as err:
        found = read_error(through(write_error(err)))
    assert type(found).__qualname__.endswith("Odd")
    assert str(found) == "of the model's own"
    assert "test_messages.py" in str(found.__cause__)
