"""Rows are padded to the longest of their batch, and outputs are cut to each request's length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.core.left_out import with_defaults
from batcher.core.padding import Padding, RaggedGroup
from batcher.core.spec import Array, ModelSpec
from batcher.errors import InvalidInput, ModelContractError
from tests.support.models import model_spec, tensor

OUTPUT = tensor("y", shape=(-1,), unpads=True)


def empty(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype)


def batch_of(spec: ModelSpec, *arrays: Array) -> Batch:
    padding = Padding(spec)
    return Batch(
        [
            Part({"x": array}, len(array), 1, padding.group_of({"x": array}), 1, 0.0, 0.0)
            for array in arrays
        ]
    )


def spec_of(*shape: int, **more: Any) -> ModelSpec:
    return model_spec(inputs=(tensor("x", shape=shape, pad=0, **more),), outputs=(OUTPUT,))


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), min_size=1, max_size=5))
def test_each_request_gets_its_own_rows_back_whatever_stood_beside_them(
    sizes: list[tuple[int, int]],
) -> None:
    spec = spec_of(-1)
    arrays = [np.random.default_rng(1).random(size).astype("<f4") + 1 for size in sizes]
    batch = batch_of(spec, *arrays)
    collated = batch.collate(empty)["x"]
    assert collated.shape == (sum(rows for rows, _ in sizes), max(size for _, size in sizes))
    assert collated.sum() == pytest.approx(sum(float(array.sum()) for array in arrays), rel=1e-5)
    for array, own in zip(arrays, batch.split({"y": collated * 2}), strict=True):
        assert np.array_equal(own["y"], array * 2)


@pytest.mark.parametrize("shape", [(-1, 3), (3, -1), (2, -1, 2)])
def test_the_free_axis_may_stand_anywhere(shape: tuple[int, ...]) -> None:
    spec = model_spec(
        inputs=(tensor("x", shape=shape, pad=9),),
        outputs=(tensor("y", shape=shape, unpads=True),),
    )
    arrays = [
        np.full((1, *(size if each < 0 else each for each in shape)), size, "<f4")
        for size in (1, 4, 2)
    ]
    batch = batch_of(spec, *arrays)
    collated = batch.collate(empty)["x"]
    assert collated.shape == (3, *(4 if each < 0 else each for each in shape))
    assert set(np.unique(collated[0])) == {1, 9}
    for array, own in zip(arrays, batch.split({"y": collated}), strict=True):
        assert np.array_equal(own["y"], array)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5
    ),
    st.sampled_from([(-1, -1), (3, -1, -1), (-1, 2, -1)]),
)
def test_pictures_of_any_height_and_width_get_their_own_rows_back(
    sizes: list[tuple[int, int, int]], shape: tuple[int, ...]
) -> None:
    spec = model_spec(
        inputs=(tensor("x", shape=shape, pad=0),),
        outputs=(tensor("y", shape=shape, unpads=True), tensor("z", shape=())),
    )
    arrays = []
    for rows, *free in sizes:
        ends = iter(free)
        own = (rows, *(next(ends) if size < 0 else size for size in shape))
        arrays.append(np.random.default_rng(1).random(own).astype("<f4") + 1)
    batch = batch_of(spec, *arrays)
    collated = batch.collate(empty)["x"]
    assert collated.sum() == pytest.approx(sum(float(array.sum()) for array in arrays), rel=1e-5)
    free_axes = [axis for axis, size in enumerate(shape, 1) if size < 0]
    longest = [max(array.shape[axis] for array in arrays) for axis in free_axes]
    assert [collated.shape[axis] for axis in free_axes] == longest
    totals = collated.sum(axis=tuple(range(1, collated.ndim)))
    split = batch.split({"y": collated * 2, "z": totals})
    for array, own_rows in zip(arrays, split, strict=True):
        assert np.array_equal(own_rows["y"], array * 2)
        assert len(own_rows["z"]) == len(array)


def test_texts_are_padded_as_well() -> None:
    spec = model_spec(
        inputs=(tensor("x", "BYTES", shape=(-1,), pad=b""),), outputs=(tensor("y", shape=()),)
    )
    long, short = np.array([[b"a", b"b"]], object), np.array([[b"c"]], object)
    assert batch_of(spec, long, short).collate(empty)["x"].tolist() == [[b"a", b"b"], [b"c", b""]]


def test_a_length_is_rounded_up_to_a_multiple_or_to_the_next_size() -> None:
    multiples = Padding(spec_of(-1, pad_to_multiple_of=8))
    assert [multiples.padded(length) for length in (0, 1, 8, 9)] == [0, 8, 8, 16]
    sizes = Padding(spec_of(-1, pad_sizes=(4, 16)))
    assert [sizes.padded(length) for length in (1, 4, 5, 17)] == [4, 4, 16, 17]


def test_requests_share_a_group_if_all_but_their_length_is_equal() -> None:
    padding = Padding(spec_of(-1, 3))
    groups = [padding.group_of({"x": np.zeros((2, length, 3), "<f4")}) for length in (1, 5)]
    assert groups[0] == groups[1]
    assert padding.group_of({"x": np.zeros((1, 5, 4), "<f4")}) != groups[0]
    assert isinstance(groups[0], RaggedGroup)
    assert groups[0].padded_to((5,)).elements == 15


def test_rows_beyond_the_largest_size_share_a_group_with_those_of_their_length_alone() -> None:
    padding = Padding(spec_of(3, -1, -1, pad_sizes=(4, 16)))

    def group_of(height: int, width: int) -> RaggedGroup:
        group = padding.group_of({"x": np.zeros((1, 3, height, width), "<f4")})
        assert isinstance(group, RaggedGroup)
        assert group.width == 3
        return group

    assert group_of(4, 16) == group_of(1, 1)
    assert group_of(17, 2) == group_of(17, 16)
    assert len({group_of(17, 2), group_of(18, 2), group_of(2, 17), group_of(17, 17)}) == 4
    assert group_of(17, 2).padded_to((17, 2)).lengths == (17, 4)


def test_inputs_of_one_request_have_one_length() -> None:
    padding = Padding(
        model_spec(
            inputs=tuple(tensor(name, shape=(-1,), pad=0) for name in ("a", "b")),
            outputs=(tensor("y", shape=()),),
        )
    )
    with pytest.raises(InvalidInput, match="input 'b': expected the length of 'a', 3; got 4"):
        padding.group_of({"a": np.zeros((1, 3)), "b": np.zeros((1, 4))})


def test_inputs_of_one_request_have_the_same_two_lengths() -> None:
    padding = Padding(
        model_spec(
            inputs=(tensor("a", shape=(-1, -1), pad=0), tensor("b", shape=(3, -1, -1), pad=0)),
            outputs=(tensor("y", shape=()),),
        )
    )
    group = padding.group_of({"a": np.zeros((1, 3, 5)), "b": np.zeros((1, 3, 3, 5))})
    assert isinstance(group, RaggedGroup)
    assert group.padded_to((4, 6)).elements == 24
    with pytest.raises(InvalidInput, match=r"expected the lengths of 'a', \[3,5\]; got \[5,3\]"):
        padding.group_of({"a": np.zeros((1, 3, 5)), "b": np.zeros((1, 3, 5, 3))})


def test_an_output_that_does_not_follow_the_length_breaks_the_contract() -> None:
    batch = batch_of(spec_of(-1), np.zeros((1, 3), "<f4"), np.zeros((1, 5), "<f4"))
    with pytest.raises(ModelContractError, match="the length of the batch, 5"):
        batch.split({"y": np.zeros((2, 4), "<f4")})


def test_masks_and_lengths_that_a_request_leaves_out_are_filled() -> None:
    spec = model_spec(
        inputs=(
            tensor("x", shape=(-1,), pad=0),
            tensor("mask", "BOOL", shape=(-1,), pad=False, is_optional=True, mask_of="x"),
            tensor("sizes", "INT64", shape=(1,), is_optional=True, lengths_of="x"),
        ),
        outputs=(tensor("y", shape=()),),
    )
    filled = with_defaults(spec, {"x": np.zeros((2, 3), "<f4")}, 2)
    assert filled["mask"].tolist() == [[True] * 3] * 2
    assert filled["sizes"].tolist() == [[3], [3]]
    assert filled["sizes"].dtype == np.int64


@pytest.mark.parametrize("said", [[4], [-1], [3, 2**40], [float("nan")]])
def test_no_row_is_said_to_be_longer_than_it_is(said: list[float]) -> None:
    sizes = tensor("sizes", "FP64", shape=(), is_optional=True, lengths_of="x")
    padding = Padding(
        model_spec(inputs=(tensor("x", shape=(-1,), pad=0), sizes), outputs=(OUTPUT,))
    )
    rows = np.zeros((len(said), 3), "<f4")
    padding.group_of({"x": rows, "sizes": np.arange(len(said), dtype="<f8")})
    with pytest.raises(InvalidInput, match="input 'sizes': expected lengths of 0 to 3, the"):
        padding.group_of({"x": rows, "sizes": np.array(said, "<f8")})


def test_masks_and_lengths_of_pictures_are_filled() -> None:
    spec = model_spec(
        inputs=(
            tensor("x", shape=(3, -1, -1), pad=0),
            tensor("mask", "BOOL", shape=(-1, -1), pad=False, is_optional=True, mask_of="x"),
            tensor("sizes", "INT64", shape=(2,), is_optional=True, lengths_of="x"),
        ),
        outputs=(tensor("y", shape=()),),
    )
    filled = with_defaults(spec, {"x": np.zeros((2, 3, 4, 5), "<f4")}, 2)
    assert filled["mask"].shape == (2, 4, 5)
    assert filled["mask"].all()
    assert filled["sizes"].tolist() == [[4, 5], [4, 5]]
    stretched, elements = Padding(spec).stretched(filled, 7)
    assert (stretched["x"].shape, elements) == ((2, 3, 7, 7), 147)
    assert stretched["sizes"].tolist() == [[7, 7], [7, 7]]
