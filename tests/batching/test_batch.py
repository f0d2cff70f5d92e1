"""Collate and split: each part gets its own rows back, and the model a buffer of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.core.spec import DATATYPES, Array

DTYPES = sorted({row.numpy.str for row in DATATYPES.values()})

row_shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
signatures = st.dictionaries(
    st.sampled_from(["x", "y", "z"]),
    st.tuples(st.sampled_from(DTYPES), row_shapes),
    min_size=1,
    max_size=3,
)


def own_values(number: int, rows: int, dtype: str, shape: tuple[int, ...]) -> Array:
    """Return rows whose elements say which part they belong to, as far as the dtype can."""
    size = rows * int(np.prod(shape))
    if dtype == "|O":
        array = np.empty(size, object)
        array[:] = [b"%d/%d" % (number, index) for index in range(size)]
        return array.reshape((rows, *shape))
    return (np.arange(size) + 7 * number).astype(dtype).reshape((rows, *shape))


def part_of(inputs: dict[str, Array]) -> Part:
    rows = len(next(iter(inputs.values())))
    return Part(inputs, rows, 0, (), 1, 0.0, 0.0)


def empty(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype)


@given(signature=signatures, counts=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_each_part_gets_its_own_rows_back(
    signature: dict[str, tuple[str, tuple[int, ...]]], counts: list[int]
) -> None:
    parts = [
        part_of(
            {
                name: own_values(number, rows, dtype, shape)
                for name, (dtype, shape) in signature.items()
            }
        )
        for number, rows in enumerate(counts)
    ]
    batch = Batch(parts)
    assert batch.rows == sum(counts)
    collated = batch.collate(empty)
    assert list(collated) == list(signature)
    for name, (dtype, shape) in signature.items():
        assert collated[name].dtype == np.dtype(dtype)
        assert collated[name].shape == (batch.rows, *shape)
    split = batch.split(collated)
    assert len(split) == len(parts)
    for each, rows in zip(parts, split, strict=True):
        for name, array in each.inputs.items():
            assert rows[name].dtype == array.dtype
            np.testing.assert_array_equal(rows[name], array, strict=True)


@pytest.mark.parametrize("counts", [(1,), (4,), (1, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["<f4", "?", "|O"])
def test_the_model_may_write_into_what_it_gets(dtype: str, counts: tuple[int, ...]) -> None:
    arrays = [own_values(number, rows, dtype, (2,)) for number, rows in enumerate(counts)]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False  # as a view of a request's body is
    collated = Batch([part_of({"x": array}) for array in arrays]).collate(empty)["x"]
    assert collated.flags.writeable
    assert collated.flags.c_contiguous
    assert not any(np.shares_memory(collated, array) for array in arrays)
    collated[...] = b"overwritten" if dtype == "|O" else 1
    for array, unchanged in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, unchanged)


def test_a_part_that_is_a_view_with_gaps_is_collated_like_any_other() -> None:
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    collated = Batch([part_of({"x": wide[::2, ::3]}), part_of({"x": wide[1:2, 1:3]})]).collate(
        empty
    )["x"]
    np.testing.assert_array_equal(collated, [[0, 3], [12, 15], [7, 8]])


def test_a_buffer_is_asked_for_once_an_input_with_the_rows_of_the_whole_batch() -> None:
    asked = []

    def allocate(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        asked.append((name, shape, dtype.str))
        return np.empty(shape, dtype)

    inputs = [{"x": np.zeros((rows, 2, 3), "<f4"), "n": np.zeros(rows, "<i8")} for rows in (2, 3)]
    Batch([part_of(each) for each in inputs]).collate(allocate)
    assert asked == [("x", (5, 2, 3), "<f4"), ("n", (5,), "<i8")]


def test_what_is_collated_stands_in_the_buffer_that_was_given() -> None:
    arena = np.full((8, 2), 9.0, "<f4")
    collated = Batch([part_of({"x": np.ones((3, 2), "<f4")})]).collate(
        lambda name, shape, dtype: arena[: shape[0]]
    )
    assert np.shares_memory(collated["x"], arena)
    assert arena[:, 0].tolist() == [1, 1, 1, 9, 9, 9, 9, 9]


def test_outputs_may_have_other_names_and_shapes_than_inputs() -> None:
    batch = Batch([part_of({"x": np.zeros((rows, 4))}) for rows in (1, 2)])
    first, second = batch.split(
        {"label": np.array([1, 2, 3]), "scores": np.arange(6).reshape(3, 2)}
    )
    assert (first["label"].tolist(), second["label"].tolist()) == ([1], [2, 3])
    assert (first["scores"].tolist(), second["scores"].tolist()) == ([[0, 1]], [[2, 3], [4, 5]])
