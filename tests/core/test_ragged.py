"""Rows of unequal shapes as one value."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.core.ragged import copied, is_ragged, joined_rows, own_rows, ragged, row_shapes
from batcher.core.request import nbytes_of
from batcher.core.spec import Array


def row(*shape: int) -> Array:
    return np.arange(np.prod(shape, dtype=int), dtype="<f4").reshape(shape)


def test_rows_of_one_shape_may_be_ragged_too() -> None:
    array = ragged([row(2, 3), row(2, 3)])
    assert is_ragged(array)
    assert array.shape == (2,)
    assert array[1].shape == (2, 3)


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.array([b"a", b"b"], object), np.empty((2, 2), object), np.empty(0, object)],
    ids=["numbers", "texts", "texts of two axes", "nothing"],
)
def test_other_arrays_are_not_ragged(array: Array) -> None:
    assert not is_ragged(array)


def test_the_rows_of_a_request_become_an_ordinary_array_if_they_have_one_shape() -> None:
    array = ragged([row(2), row(3), row(3)])
    assert own_rows(array, 0, 1).tolist() == [[0, 1]]
    assert own_rows(array, 1, 3).shape == (2, 3)
    assert is_ragged(own_rows(array, 0, 2))


def test_ordinary_rows_are_views() -> None:
    array = row(3, 2)
    assert np.shares_memory(own_rows(array, 1, 2), array)


def test_joined_rows_keep_their_order_whatever_they_came_in() -> None:
    joined = joined_rows([ragged([row(1), row(2)]), np.ones((2, 3), "<f4")])
    assert [len(each) for each in joined] == [1, 2, 3, 3]
    assert not is_ragged(joined_rows([np.zeros((1, 2)), np.ones((1, 2))]))


def test_a_copy_shares_no_row() -> None:
    array = ragged([row(2), row(3)])
    copy = copied(array)
    array[0][:] = 9
    assert copy[0].tolist() == [0, 1]
    assert not np.shares_memory(copied(array[1]), array[1])


def test_the_bytes_of_ragged_rows_are_those_of_all_rows() -> None:
    array = ragged([row(2), row(300)])
    assert nbytes_of({"y": array}) == array.nbytes + 302 * 4


def test_shapes_are_named_once_each() -> None:
    assert row_shapes(ragged([row(2, 4), row(0, 4), row(2, 4)])) == "[0,4], [2,4]"
