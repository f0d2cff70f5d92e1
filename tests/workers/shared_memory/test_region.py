"""A region of shared memory: parts that overlap never, and come back in any order."""

from __future__ import annotations

import gc
import os
from mmap import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.workers.shared_memory.region import (
    ALIGNMENT_BYTES,
    Lender,
    Reader,
    mapped,
    sealed_file,
)

SIZE = 1 << 14


def both() -> tuple[Lender, Reader]:
    memory = mmap(-1, SIZE)
    return Lender(memory), Reader(memory)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, SIZE // 2), st.integers(0, 5)), min_size=1, max_size=60))
def test_every_array_is_read_as_it_was_written_whatever_comes_back_first(
    steps: list[tuple[int, int]],
) -> None:
    lender, reader = both()
    lent: list[tuple[int, np.ndarray, int]] = []
    for number, (nbytes, drop) in enumerate(steps):
        array = np.full(nbytes, number % 251, np.uint8)
        offset = lender.write(array)
        lender.check_invariants()
        if offset >= 0:
            lent.append((offset, reader.view(offset, array.shape, array.dtype), number % 251))
        for _ in range(min(drop, len(lent))):
            # From the middle: not in the order in which they were lent.
            offset, view, value = lent.pop(len(lent) // 2)
            assert (view == value).all()
            del view
            assert reader.take_gone() == [offset]
            lender.free(offset)
            lender.check_invariants()
    assert all((view == value).all() for _, view, value in lent)
    for offset in [offset for offset, _, _ in lent]:
        lender.free(offset)
    assert lender.lent == 0
    assert lender.lend(SIZE) == 0


def test_a_region_that_is_full_says_so_and_has_room_again() -> None:
    lender, _ = both()
    first, second = lender.lend(SIZE // 2), lender.lend(SIZE // 2)
    assert (first, second, lender.lend(1)) == (0, SIZE // 2, -1)
    lender.free(second)
    assert lender.lend(1) == -1  # the oldest is still in the way
    lender.free(first)
    assert lender.lend(SIZE) == 0
    assert lender.lend(SIZE + 1) == -1


def test_parts_begin_where_vectors_may() -> None:
    lender, _ = both()
    offsets = [lender.lend(1) for _ in range(3)]
    assert offsets == [0, ALIGNMENT_BYTES, 2 * ALIGNMENT_BYTES]


def test_a_part_comes_back_when_the_last_view_of_a_view_is_gone() -> None:
    lender, reader = both()
    offset = lender.write(np.arange(12, dtype=np.float32).reshape(3, 4))
    whole = reader.view(offset, (3, 4), np.dtype(np.float32))
    row = whole[1:2].ravel()
    del whole
    gc.collect()
    assert reader.take_gone() == []
    assert reader.held == 1
    assert row.tolist() == [4, 5, 6, 7]
    del row
    assert reader.take_gone() == [offset]
    assert reader.held == 0


def test_neither_side_can_change_the_size_of_the_file() -> None:
    descriptor = sealed_file(SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, SIZE // 2)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 2 * SIZE)
    assert len(mapped(descriptor)) == SIZE
