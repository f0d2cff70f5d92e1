"""Shapes from outside, within bounds and beyond."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.shapes import MAX_AXES, MAX_AXIS_SIZE, MAX_TENSOR_BYTES, checked_shape
from batcher.errors import InvalidInput

SIZES = st.sampled_from([0, 1, 2, 3, 2**16, 2**31 - 1, 2**31, 2**63, 2**64, -1, True, 1.0, "2"])


@given(st.lists(SIZES, max_size=40), st.sampled_from([1, 2, 4, 8]))
def test_a_shape_that_is_taken_is_one_that_numpy_can_count(shape: list[Any], itemsize: int) -> None:
    try:
        found = checked_shape(shape, itemsize, "array")
    except InvalidInput:
        return
    assert list(found) == shape
    assert prod(found) * itemsize <= MAX_TENSOR_BYTES
    if not prod(found):
        assert np.empty(0, f"V{itemsize}").reshape(found).shape == found


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        (None, "expected a shape such as .*; got None"),
        ("12", "got '12'"),
        ({"2": 3}, "got {'2': 3}"),
        ([1] * (MAX_AXES + 1), "at most 32 axes; got 33"),
        ([2, True], r"whole numbers; got \[2, True\]"),
        ([2, 3.0], "whole numbers"),
        ([2, -1], "whole numbers"),
        ([[2]], "whole numbers"),
        ([MAX_AXIS_SIZE + 1], "axes of at most 2147483647 elements"),
        ([10**5000], "got \\[a whole number of 16610 bits"),
        ([2**30, 2**30, 2], "at most 9223372036854775807 bytes"),
        ([0, 2**30, 2**30, 2], "at most 9223372036854775807 bytes"),
    ],
)
def test_a_shape_that_is_refused_is_told_which_limit(shape: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        checked_shape(shape, 4, "input 'x'")
