"""Outputs as bytes, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from batcher.core.ragged import is_ragged, ragged
from batcher.core.spec import DATATYPES, Array
from batcher.serving.caching.packing import is_quick, pack, read_only, unpack

DTYPES = sorted({row.numpy.str for row in DATATYPES.values()} - {"|O"})
TEXTS = np.array([[b"a", b""], [b"\x00bc", b"d" * 9]], object)
BOXES = ragged([np.ones((2, 4), "<f4"), np.zeros((0, 4), "<f4"), np.full((1, 4), 7, "<f4")])
NAMES = ragged([np.array([b"cat", b"dog"], object), np.array([], object)])


def equal(one: Array, other: Array) -> bool:
    if is_ragged(one):
        return is_ragged(other) and all(map(equal, one, other))
    return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, min_side=0))
        ),
        max_size=3,
    ),
    st.sampled_from([b"", b"12345678"]),
)
def test_arrays_come_back_as_they_were(outputs: dict[str, Array], begin: bytes) -> None:
    found = unpack(pack(outputs, begin), len(begin))
    assert list(found) == list(outputs)
    for name, array in outputs.items():
        assert found[name].tobytes() == array.tobytes()
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)


@pytest.mark.parametrize("array", [TEXTS, TEXTS[:0], BOXES, NAMES])
def test_texts_and_ragged_rows_come_back_as_they_were(array: Array) -> None:
    found = unpack(pack({"y": array, "z": BOXES}))
    assert found["y"].shape == array.shape
    assert all(
        equal(one, other) if isinstance(one, np.ndarray) else one == other
        for one, other in zip(array.ravel(), found["y"].ravel(), strict=True)
    )
    assert equal(found["z"], BOXES)


def test_what_is_kept_is_a_copy() -> None:
    array = np.ones((1, 3), "<f4")
    packed = pack({"y": array})
    array[:] = 5
    assert unpack(packed)["y"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("array", [np.ones((2, 3), "<f4"), TEXTS, BOXES])
def test_nobody_can_write_into_what_several_get(array: Array) -> None:
    for found in (unpack(pack({"y": array}))["y"], read_only({"y": array})["y"]):
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0
        if is_ragged(found):
            with pytest.raises(ValueError, match="read-only"):
                found[0][0] = 0
    assert array.flags.writeable


def test_arrays_alone_are_quick() -> None:
    assert is_quick(pack({"y": np.ones((1, 3))}))
    assert not is_quick(pack({"y": TEXTS}))
    assert not is_quick(pack({"y": np.ones((1, 3)), "z": BOXES}))
