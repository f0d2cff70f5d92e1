"""Arrays through shared memory.

Whatever goes in at one side comes out at the other, and views keep their slot.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from batcher.core.spec import DATATYPES, Array
from batcher.workers.shared_memory.packing import Packer, unpack
from batcher.workers.shared_memory.ring import MAX_COPIED_BYTES, MAX_HELD_SLOTS, Ring
from batcher.workers.shared_memory.slots import Slot

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NUMBERS = [row.numpy for row in DATATYPES.values() if row.name != "BYTES"]
ODD = [
    np.dtype(">f4"),
    np.dtype("<U3"),
    np.dtype("S2"),
    np.dtype("M8[ns]"),
    np.dtype([("a", "<i4"), ("b", "<f8", (2,))]),
]


@st.composite
def any_array(draw: st.DrawFn) -> Array:
    """Draw an array of any dtype and shape, contiguous or not."""
    shape = draw(SHAPES)
    if draw(st.booleans()):
        found = np.empty(shape, object)
        found.ravel()[...] = [draw(st.binary(max_size=20)) for _ in range(found.size)]
    else:
        found = draw(arrays.arrays(st.sampled_from([*NUMBERS, *ODD]), shape))
    order = draw(st.sampled_from(["as it is", "transposed", "reversed"]))
    if order == "transposed":
        return found.T
    return found[::-1] if order == "reversed" and found.ndim else found


class Pair:
    """One piece of memory as each of two processes has it."""

    def __init__(self, count: int = 1) -> None:
        self.fds = [os.memfd_create("test") for _ in range(count)]
        self.ours = [Slot(fd) for fd in self.fds]
        self.theirs = [Slot(fd) for fd in self.fds]

    def close(self) -> None:
        """Let go of the files; what is mapped stays."""
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def ring() -> Iterator[tuple[Ring, Pair]]:
    pair = Pair(MAX_HELD_SLOTS + 2)
    yield Ring(pair.ours), pair
    pair.close()


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    """Assert that names, dtypes, shapes and values are equal."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert (
            found[name].tobytes() == array.tobytes()
            if not array.dtype.hasobject
            else (found[name] == array).all()
        )


@given(
    given_=st.dictionaries(st.text(max_size=5), any_array(), max_size=4),
    returned=st.dictionaries(st.text(max_size=5), any_array(), max_size=4),
)
def test_any_arrays_go_to_the_other_side_and_others_come_back(
    given_: dict[str, Array], returned: dict[str, Array]
) -> None:
    pair = Pair()
    (ours,), (theirs,) = pair.ours, pair.theirs
    there = Packer(ours)
    table = there.table(given_)
    theirs.reserve(there.end)
    inputs = unpack(table, theirs.memory)
    back = Packer(theirs, there.end)
    answer = back.table(returned)
    ours.reserve(back.end)
    assert all(place.offset % 64 == 0 for place in table + answer), "a vector may be read at once"
    assert_same(unpack(answer, ours.memory), returned)
    assert_same(inputs, given_)
    pair.close()


def test_what_was_allocated_is_not_copied_again_and_is_writable_at_the_other_side() -> None:
    pair = Pair()
    packer = Packer(pair.ours[0])
    buffer = packer.allocate("x", (3, 2), np.dtype("<f4"))
    buffer[...] = 1
    table = packer.table({"x": buffer})
    (view,) = unpack(table, pair.theirs[0].memory).values()
    buffer[0] = 2
    view[1] = 3
    assert view[:, 0].tolist() == buffer[:, 0].tolist() == [2, 3, 1]
    pair.close()


def test_what_was_allocated_before_the_slot_grew_is_still_in_it() -> None:
    pair = Pair()
    packer = Packer(pair.ours[0])
    small = packer.allocate("small", (4,), np.dtype("<i8"))
    large = packer.allocate("large", (1 << 17,), np.dtype("<i8"))
    small[...], large[...] = 7, 8
    table = packer.table({"large": large, "small": small})
    pair.theirs[0].reserve(packer.end)
    found = unpack(table, pair.theirs[0].memory)
    assert found["small"].tolist() == [7] * 4
    assert (found["large"] == 8).all()
    pair.close()


@pytest.mark.parametrize("wrong", ["text", 1, None])
def test_objects_that_are_not_bytes_are_refused(wrong: object) -> None:
    pair = Pair()
    array = np.array([b"fine", wrong], object)
    with pytest.raises(
        TypeError, match=f"'x': expected objects that are bytes; got {type(wrong).__name__}"
    ):
        Packer(pair.ours[0]).table({"x": array})
    pair.close()


def test_memory_that_cannot_be_had_is_a_memory_error() -> None:
    pair = Pair()
    with pytest.raises(MemoryError, match="no room for"):
        pair.ours[0].reserve(1 << 62)
    pair.close()


def put(ring: Ring, array: Array) -> dict[str, Array]:
    """Send a result through the next free slot and return it as the ring gives it."""
    _, slot = ring.take()
    return ring.read(slot, Packer(slot).table({"y": array}))


LARGE = np.zeros(MAX_COPIED_BYTES + 1, np.uint8)


def test_a_large_result_holds_its_slot_until_the_last_view_of_it_is_gone(
    ring: tuple[Ring, Pair],
) -> None:
    slots = ring[1].ours
    result = put(ring[0], LARGE)
    part = result["y"][5:7].view(np.uint16)
    exported = memoryview(part)
    assert slots[0].held
    del result
    assert slots[0].held
    del part
    assert slots[0].held
    del exported
    gc.collect(0)
    assert not slots[0].held
    assert ring[0].take() == (0, slots[0])


def test_a_small_result_is_copied_and_its_slot_is_free_at_once(ring: tuple[Ring, Pair]) -> None:
    result = put(ring[0], LARGE[:MAX_COPIED_BYTES])
    assert not ring[1].ours[0].held
    ring[1].ours[0].memory[...] = 9
    assert not result["y"].any()


def test_when_too_many_slots_are_held_results_are_copied_and_two_slots_stay_free(
    ring: tuple[Ring, Pair],
) -> None:
    slots = ring[1].ours
    kept = [put(ring[0], LARGE + number) for number in range(MAX_HELD_SLOTS + 5)]
    assert [slot.held for slot in slots] == [True] * MAX_HELD_SLOTS + [False] * 2
    first, second = ring[0].take(), ring[0].take()
    assert {first[0], second[0]} == {MAX_HELD_SLOTS, MAX_HELD_SLOTS + 1}
    first[1].memory[...] = second[1].memory[...] = 99
    assert [int(result["y"][0]) for result in kept] == list(range(MAX_HELD_SLOTS + 5))
    del kept[1]
    assert not slots[1].held


def test_a_slot_that_a_batch_is_in_is_not_given_to_another(ring: tuple[Ring, Pair]) -> None:
    assert [ring[0].take()[0] for _ in range(3)] == [0, 1, 2]
