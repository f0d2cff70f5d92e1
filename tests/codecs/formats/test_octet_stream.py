"""`application/octet-stream`: the one tensor as it lies in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import octet_stream
from batcher.core.request import BatchOutputs, InferenceResponse, OutputRows
from batcher.core.spec import Array, check_inputs, datatype
from batcher.errors import DecodingError
from tests.support.codec_inputs import (
    NUMBERS,
    ROW_SHAPES,
    arrays,
    decoded_or_refused,
    one_input,
    response,
    same,
)
from tests.support.models import tensor


@given(st.data(), st.sampled_from(NUMBERS), ROW_SHAPES, st.integers(1, 5))
def test_any_rows_of_any_number_type_come_back_bit_for_bit(
    data: st.DataObject, dtype: str, shape: tuple[int, ...], rows: int
) -> None:
    array = data.draw(arrays(dtype, (rows, *shape)))
    spec = one_input(dtype, shape)
    body = octet_stream.encode(response(x=array), spec)
    inputs = octet_stream.decode(Content(body), spec)
    assert check_inputs(spec, inputs) == rows
    same(inputs["x"], array)


@given(st.data(), st.sampled_from(NUMBERS), ROW_SHAPES.filter(len))
def test_a_free_axis_is_measured_by_the_length_of_one_row(
    data: st.DataObject, dtype: str, shape: tuple[int, ...]
) -> None:
    array = data.draw(arrays(dtype, (1, *shape)))
    free = data.draw(st.integers(0, len(shape) - 1))
    spec = one_input(dtype, (*shape[:free], -1, *shape[free + 1 :]))
    same(octet_stream.decode(Content(array.tobytes()), spec)["x"], array)


@given(
    st.binary(max_size=100),
    st.sampled_from(NUMBERS),
    st.lists(st.integers(-1, 4), max_size=3).map(tuple),
)
def test_any_bytes_are_whole_rows_or_refused(
    body: bytes, dtype: str, shape: tuple[int, ...]
) -> None:
    spec = one_input(dtype, shape)
    if octet_stream.carries(spec.inputs):
        decoded_or_refused(octet_stream.decode, body, spec)


def test_a_body_that_ends_inside_a_row_is_refused_with_both_lengths() -> None:
    with pytest.raises(
        DecodingError,
        match=r"input 'x': expected FP32\[-1,4\], a multiple of 16 bytes a row; got 17 bytes",
    ):
        octet_stream.decode(Content(bytes(17)), one_input("FP32", (4,)))


def test_a_body_that_ends_inside_an_element_of_the_free_axis_is_refused_with_both_lengths() -> None:
    with pytest.raises(
        DecodingError,
        match=r"FP64\[-1,3,-1\], a multiple of 24 bytes an? element of the free axis; got 25",
    ):
        octet_stream.decode(Content(bytes(25)), one_input("FP64", (3, -1)))


def test_an_empty_body_is_no_row() -> None:
    with pytest.raises(DecodingError, match="got 0 bytes"):
        octet_stream.decode(Content(b""), one_input())


def test_numbers_are_little_endian_on_every_machine() -> None:
    inputs = octet_stream.decode(Content(b"\x01\x00\x02\x00"), one_input("INT16"))
    assert inputs["x"].tolist() == [[1, 2]]


def test_decoding_copies_nothing() -> None:
    body = bytearray(8)
    array = octet_stream.decode(Content(memoryview(body)), one_input())["x"]
    assert np.shares_memory(array, np.frombuffer(body, "u1"))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0, dtype="<f4").reshape(3, 4)[:, ::2],
        np.arange(6.0, dtype="<f4").reshape(2, 3).T,
    ],
)
def test_an_output_that_is_a_view_is_written_in_row_major_order(array: Array) -> None:
    assert bytes(octet_stream.encode(response(x=array), one_input())) == array.tobytes()


@given(
    st.data(), st.sampled_from(NUMBERS), st.sampled_from([(), (3,), (2, 2), (2000,)]), st.booleans()
)
def test_an_answer_that_was_cut_out_of_a_batch_holds_its_own_rows(
    data: st.DataObject, dtype: str, shape: tuple[int, ...], free: bool
) -> None:
    rows = data.draw(st.integers(1, 5))
    whole = (
        data.draw(arrays(dtype, (rows, *shape)))
        if shape != (2000,)
        else np.arange(rows * 2000).astype(datatype(dtype).numpy)
    )
    whole = whole.reshape(rows, *shape)
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    spec = one_input(dtype, tuple(-1 if free else size for size in shape[:1]) + shape[1:])
    answer = InferenceResponse(
        "m", "1", OutputRows(BatchOutputs({"x": whole}), start, stop), 0.0, 0.0, rows
    )
    assert bytes(octet_stream.encode(answer, spec)) == whole[start:stop].tobytes()


def test_a_boolean_byte_other_than_0_and_1_never_reaches_the_model() -> None:
    inputs = decoded_or_refused(octet_stream.decode, b"\x02\x01", one_input("BOOL"))
    assert inputs is None or inputs["x"].view("u1").max() <= 1


@pytest.mark.parametrize(
    ("tensors", "able"),
    [
        ((tensor("x", "FP32", ()),), True),
        ((tensor("x", "BF16", (3, -1)),), True),
        ((tensor("x", "FP32", (-1, -1)),), False),
        ((tensor("x", "BYTES", (1,)),), False),
        ((tensor("x"), tensor("y")), False),
    ],
)
def test_it_carries_one_tensor_of_numbers_with_at_most_one_free_axis(
    tensors: tuple[object, ...], able: bool
) -> None:
    # parametrize loses the type
    assert octet_stream.carries(tensors) is able  # type: ignore[arg-type]
