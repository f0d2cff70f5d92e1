"""Results are cast to the declared dtype where no value changes; else the error says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.element_sizes import PIECE_ELEMENTS, pieces_of
from batcher.core.spec import Array, datatype
from batcher.models import casting
from batcher.models.casting import CannotCast, cast, numbers_of
from tests.support.models import tensor


def made(values: Any, dtype: str, shape: tuple[int, ...] = ()) -> Array:
    array, wrong = cast(np.asarray(values), tensor("y", dtype, shape))
    assert wrong == {}
    assert array.dtype == datatype(dtype).numpy
    return array


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.array([0.5, 2]), "FP32", [0.5, 2]),
        (np.array([0.5, 2], "<f4"), "FP64", [0.5, 2]),
        (np.array([0.5, 2], ">f4"), "FP32", [0.5, 2]),
        (np.array([0.5, 2], np.longdouble), "FP16", [0.5, 2]),
        (np.array([1, 2]), "FP32", [1, 2]),
        (np.array([True, False]), "FP32", [1, 0]),
        (np.array([1, 2]), "UINT8", [1, 2]),
        (np.array([1, 2], "u8"), "INT16", [1, 2]),
        (np.array([True, False]), "INT64", [1, 0]),
        (np.array([1.5, 2, True], object), "FP32", [1.5, 2, 1]),
        (np.array([1, 2], object), "INT32", [1, 2]),
        (np.array(["a", "ü"]), "BYTES", [b"a", "ü".encode()]),
        (np.array([b"a", b"bc"]), "BYTES", [b"a", b"bc"]),
        (np.array(["a", b"b\0", bytearray(b"c")], object), "BYTES", [b"a", b"b\0", b"c"]),
    ],
    ids=lambda value: getattr(getattr(value, "dtype", value), "str", str(value)),
)
def test_values_that_keep_their_meaning_are_cast(values: Array, dtype: str, expected: Any) -> None:
    assert made(values, dtype).tolist() == expected


def test_many_texts_are_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def noted(array: Array) -> Iterator[list[bytes]]:
        for piece in pieces_of(array):
            looked_at.append(len(piece))
            yield piece

    monkeypatch.setattr(casting, "pieces_of", noted)
    texts = np.full((3, PIECE_ELEMENTS), b"word", object)
    array, wrong = cast(texts, tensor("y", "BYTES", (PIECE_ELEMENTS,)))
    assert (array is texts, wrong) == (True, {})
    assert looked_at == [PIECE_ELEMENTS] * 3


def test_an_array_of_the_declared_dtype_is_not_copied() -> None:
    array = np.zeros(3, "<f4")
    assert cast(array, tensor("y", "FP32", ()))[0] is array


@pytest.mark.parametrize("dtype", ["INT64", "UINT8", "BOOL", "FP32", "BF16", "BYTES"])
def test_no_elements_at_all_fit_every_dtype(dtype: str) -> None:
    array = made([[], []], dtype, (-1,))
    assert array.shape == (2, 0)


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64", "BF16"])
def test_nan_and_infinity_pass(dtype: str) -> None:
    values = np.array([np.nan, np.inf, -np.inf], "<f4" if dtype == "FP64" else "<f8")
    array = made(values, dtype)
    if dtype == "BF16":
        assert array.tolist() == [0x7FC0, 0x7F80, 0xFF80]
    else:
        np.testing.assert_array_equal(array, values)


def test_bits_of_bf16_stay_and_floats_become_bits() -> None:
    bits = np.array([0x3F80], "<u2")
    assert cast(bits, tensor("y", "BF16", ()))[0] is bits
    assert made(np.array([1.0, -2.0]), "BF16").tolist() == [0x3F80, 0xC000]


@pytest.mark.parametrize(
    ("values", "dtype", "got"),
    [
        ([[1.0, 2.0], [3.0, 1e39]], "FP32", "1e+39"),
        ([[1.0, 2.0], [3.0, 7e4]], "FP16", "70000.0"),
        ([[1.0, 2.0], [3.0, 3.4e38]], "FP16", "3.4e+38"),
        ([[1, 2], [300, 3]], "UINT8", "300"),
        ([[1, 2], [-1, 3]], "UINT64", "-1"),
        ([[1, 2], [3, 70_000]], "INT16", "70000"),
        ([["a", "b"], ["\ud800", "c"]], "BYTES", "str"),
        (np.array([[b"a", b"b"], [None, b"c"]], object), "BYTES", "NoneType None"),
        (np.array([[b"a", b"b"], [b"c", 5]], object), "BYTES", "int 5"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_named_with_its_row_and_spoils_no_other(
    values: Any, dtype: str, got: str
) -> None:
    array, wrong = cast(np.asarray(values), tensor("y", dtype, (2,)))
    assert wrong.keys() == {1}
    assert got in wrong[1]
    first = np.asarray(values)[0].tolist()
    assert [x.decode() if isinstance(x, bytes) else x for x in array[0].tolist()] == [
        x.decode() if isinstance(x, bytes) else x for x in first
    ]


@pytest.mark.parametrize(
    ("values", "dtype", "advice"),
    [
        ([1.0], "INT64", "round it"),
        ([1.0], "BOOL", "compare it"),
        ([1], "BOOL", "compare it with 0"),
        ([1j], "FP32", "take `.real`"),
        (["1"], "FP32", ""),
        ([1], "BYTES", "str(value).encode()"),
        ([None], "FP32", "return numbers"),
        ([10**30], "INT64", "no dtype has whole numbers of more than 64 bits"),
        (np.array(["2020-01-01"], "M8[D]"), "INT64", "astype('int64')"),
    ],
    ids=str,
)
def test_what_could_only_be_guessed_is_refused_with_what_to_write(
    values: Any, dtype: str, advice: str
) -> None:
    with pytest.raises(CannotCast) as raised:
        cast(np.asarray(values), tensor("y", dtype, ()))
    assert advice in raised.value.advice


INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]


@given(st.sampled_from(INTEGERS), st.sampled_from(INTEGERS), st.data())
def test_whole_numbers_are_cast_exactly_or_named(source: str, target: str, data: Any) -> None:
    limits = np.iinfo(datatype(source).numpy)
    bounds = st.integers(int(limits.min), int(limits.max))
    values = data.draw(st.lists(bounds, min_size=1, max_size=4))
    array, wrong = cast(np.array(values, datatype(source).numpy), tensor("y", target, ()))
    to = np.iinfo(datatype(target).numpy)
    for row, value in enumerate(values):
        fits = int(to.min) <= value <= int(to.max)
        assert (row not in wrong) == fits
        assert not fits or int(array[row]) == value


BIG = 2**53 + 1
"""A whole number that float64 does not have."""


@pytest.mark.parametrize(
    "values", [[[BIG, 1.5]], np.array([[BIG, 1.5]], object), [[0.5, 2.0], [BIG, 2.0]]]
)
@pytest.mark.parametrize("dtype", ["FP64", "INT64"])
def test_a_whole_number_that_would_lose_digits_among_floats_is_refused(
    values: Any, dtype: str
) -> None:
    array = values if isinstance(values, np.ndarray) else np.array(values, object)
    with pytest.raises(CannotCast, match="of more than 53 bits lose digits among floats"):
        cast(array, tensor("y", dtype, (2,)))
    with pytest.raises(CannotCast, match="of more than 53 bits lose digits among floats"):
        numbers_of(array.tolist())


@pytest.mark.parametrize("values", [[2.0**60, 1.5], [2**60, 1.5], [float("nan"), 1e300], [0.5, 3]])
def test_whole_numbers_that_floats_have_stay_floats(values: list[float]) -> None:
    assert numbers_of(values).dtype == np.float64


def test_whole_numbers_that_fp64_does_not_have_fail_their_rows_alone() -> None:
    array, wrong = cast(np.array([[BIG, 1], [BIG - 1, 2]]), tensor("y", "FP64", (2,)))
    assert wrong == {0: str(BIG)}
    assert array[1].tolist() == [BIG - 1, 2]


@pytest.mark.parametrize("values", [[2**64 - 1, 1], [2**63, 0], [BIG, 1]])
def test_whole_numbers_of_64_bits_keep_their_digits(values: list[int]) -> None:
    for numbers in (np.array(values, object), numbers_of(values)):
        array, wrong = cast(numbers, tensor("y", "UINT64", ()))
        assert (array.tolist(), wrong) == (values, {})
