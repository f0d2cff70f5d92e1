"""Sizes of BYTES tensors: exact where they are counted, near where they are estimated."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from batcher.core import element_sizes
from batcher.core.element_sizes import (
    PIECE_ELEMENTS,
    SAMPLED_ELEMENTS,
    SizedArrays,
    about_nbytes,
    about_written_nbytes,
    pieces_of,
    sized,
)
from batcher.core.request import nbytes_of
from batcher.core.spec import Array


def texts(count: int) -> Array:
    array = np.empty(count, object)
    array[:] = [b"x" * (index % 7) for index in range(count)]
    return array


def test_arrays_of_numbers_stay_as_they_are() -> None:
    arrays = {"x": np.zeros((2, 3), "f4")}
    assert sized(arrays) is arrays
    assert about_nbytes(arrays) == 24


@pytest.mark.parametrize("count", [0, 1, PIECE_ELEMENTS, 2 * PIECE_ELEMENTS + 1])
def test_the_size_that_arrays_bring_along_is_the_one_that_is_counted(count: int) -> None:
    arrays = {"t": texts(count).reshape(1, count), "x": np.zeros(3, "f8")}
    found = sized(arrays)
    assert isinstance(found, SizedArrays)
    assert dict(found) == arrays
    assert found.nbytes == nbytes_of(arrays) == nbytes_of(found)


def test_the_size_goes_along_to_another_process() -> None:
    there = pickle.loads(pickle.dumps(sized({"t": texts(10)})))
    assert nbytes_of(there) == nbytes_of({"t": texts(10)})


def test_nothing_is_counted_again_where_arrays_bring_their_size() -> None:
    arrays = SizedArrays({"t": texts(10)})
    arrays.nbytes = 12345
    assert nbytes_of(arrays) == 12345


@pytest.mark.parametrize("count", [0, 1, SAMPLED_ELEMENTS, 5 * SAMPLED_ELEMENTS + 3])
def test_an_estimate_is_near_the_size(count: int) -> None:
    array = texts(count)
    assert about_nbytes({"t": array}) == pytest.approx(nbytes_of({"t": array}), rel=0.01)


def test_an_estimate_looks_at_few_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    monkeypatch.setattr(
        element_sizes, "bytes_of_elements", lambda some: looked_at.extend(some) or 0
    )
    about_nbytes({"t": texts(10 * SAMPLED_ELEMENTS)})
    assert 0 < len(looked_at) <= SAMPLED_ELEMENTS


@pytest.mark.parametrize("count", [0, 1, SAMPLED_ELEMENTS, 5 * SAMPLED_ELEMENTS + 3])
def test_an_answer_counts_with_what_is_written_and_not_with_its_objects(count: int) -> None:
    array = texts(count)
    written = 8 * count + sum(map(len, array.tolist()))
    assert about_written_nbytes({"t": array}) == pytest.approx(written, rel=0.01)


def test_rows_of_different_lengths_count_with_their_numbers() -> None:
    rows: Array = np.empty(2, object)
    rows[:] = [np.zeros(5, "f4"), np.zeros(7, "f4")]
    arrays = {"x": rows, "y": np.zeros(3, "f8")}
    assert about_written_nbytes(arrays) == 2 * 8 + 4 * 12 + 24


def test_pieces_are_all_elements_in_row_major_order() -> None:
    array = texts(3 * PIECE_ELEMENTS).reshape(3, PIECE_ELEMENTS).T
    pieces = list(pieces_of(array))
    assert [element for piece in pieces for element in piece] == array.ravel().tolist()
    assert max(map(len, pieces)) == PIECE_ELEMENTS
