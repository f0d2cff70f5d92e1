"""BF16 as 16-bit integers, compared with PyTorch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.formats import bfloat16

EVERY_PATTERN = np.arange(1 << 16, dtype="<u4").astype("<u2")
NAN = (EVERY_PATTERN & 0x7FFF) > 0x7F80


def test_every_pattern_means_what_it_means_to_pytorch() -> None:
    theirs = torch.from_numpy(EVERY_PATTERN.view("<i2")).view(torch.bfloat16).float().numpy()
    ours = bfloat16.to_float32(EVERY_PATTERN)
    assert ours.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(ours, theirs)


def test_every_number_comes_back_to_its_own_pattern() -> None:
    back = bfloat16.from_float32(bfloat16.to_float32(EVERY_PATTERN))
    assert back.dtype == np.dtype("<u2")
    np.testing.assert_array_equal(back[~NAN], EVERY_PATTERN[~NAN])


def test_every_nan_stays_a_nan() -> None:
    assert np.isnan(
        bfloat16.to_float32(bfloat16.from_float32(bfloat16.to_float32(EVERY_PATTERN[NAN])))
    ).all()


@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=64))
def test_any_float32_is_rounded_as_pytorch_rounds_it(patterns: list[int]) -> None:
    values = np.array(patterns, dtype="<u4").view("<f4")
    theirs = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy().view("<u2")
    number = ~np.isnan(values)
    np.testing.assert_array_equal(bfloat16.from_float32(values)[number], theirs[number])


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.0, 0xC000),
        (1 + 2**-8, 0x3F80),
        (1 + 3 * 2**-8, 0x3F82),
        (3.4e38, 0x7F80),
        (float("inf"), 0x7F80),
    ],
)
def test_halves_go_to_even_and_too_large_numbers_to_infinity(value: float, bits: int) -> None:
    assert bfloat16.from_float32(np.array([value], "<f4"))[0] == bits


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0, 4)])
def test_a_shape_is_kept_both_ways(shape: tuple[int, ...]) -> None:
    assert bfloat16.to_float32(np.zeros(shape, "<u2")).shape == shape
    assert bfloat16.from_float32(np.zeros(shape, "<f4")).shape == shape
