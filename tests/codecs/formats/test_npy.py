"""`application/x-npy`, with numpy itself as the client."""

from __future__ import annotations

import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib import format as npy_format

from batcher.codecs.content import Content
from batcher.codecs.formats import npy
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput
from tests.support.codec_inputs import (
    MIB,
    batches,
    damaged,
    decoded_or_refused,
    one_input,
    python_memory_below,
    response,
    same,
)
from tests.support.models import tensor


def saved(array: Array, version: tuple[int, int] | None = None) -> bytes:
    file = BytesIO()
    npy_format.write_array(file, array, version)
    return file.getvalue()


def crafted(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Return a .npy file with any text as its header."""
    text = header.encode()
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack("<H" if version == (1, 0) else "<I", len(text))
        + text
        + data
    )


def header(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


BODIES = [
    saved(np.zeros((3, 2), "<f4")),
    saved(np.ones((1, 2), ">f4")),
    saved(np.ones((3, 2), "<f4", order="F"), (2, 0)),
]


@given(batches(), st.sampled_from([None, (1, 0), (2, 0), (3, 0)]), st.booleans(), st.booleans())
def test_what_numpy_saves_arrives_bit_for_bit(
    batch: tuple[ModelSpec, Array], version: tuple[int, int] | None, fortran: bool, big_endian: bool
) -> None:
    spec, array = batch
    sent = np.asarray(array, order="F" if fortran else "C")
    sent = sent.astype(sent.dtype.newbyteorder(">")) if big_endian else sent
    inputs = npy.decode(Content(memoryview(saved(sent, version))), spec)
    assert check_inputs(spec, inputs) == len(array)
    same(inputs["x"], array)


@given(batches())
def test_what_is_answered_numpy_loads_bit_for_bit(batch: tuple[ModelSpec, Array]) -> None:
    spec, array = batch
    same(np.load(BytesIO(bytes(npy.encode(response(x=array), spec))), allow_pickle=False), array)


def test_an_array_that_lies_as_it_is_needed_is_not_copied() -> None:
    body = saved(np.ones((1000, 2), "<f4"))
    assert np.shares_memory(npy.decode(Content(body), one_input())["x"], np.frombuffer(body, "u1"))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(body: bytes) -> None:
    assert decoded_or_refused(npy.decode, body, one_input()) is None


@given(damaged(BODIES))
def test_a_damaged_file_is_an_array_or_refused(body: bytes) -> None:
    decoded_or_refused(npy.decode, body, one_input())


@pytest.mark.parametrize("length", range(len(BODIES[0])))
def test_a_file_that_is_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(DecodingError):
        npy.decode(Content(BODIES[0][:length]), one_input())


@pytest.mark.parametrize(("extra", "came"), [(b"\0", 9), (b"\0" * 8, 16)])
def test_data_of_another_length_than_promised_is_refused_with_both_lengths(
    extra: bytes, came: int
) -> None:
    with pytest.raises(
        DecodingError, match=rf"input 'x': expected 8 bytes for FP32\[1,2\]; got {came}"
    ):
        npy.decode(Content(saved(np.zeros((1, 2), "<f4")) + extra), one_input())


@pytest.mark.parametrize(
    ("text", "data"),
    [
        pytest.param(header(str((1,) * 70)), bytes(4), id="more axes than numpy has"),
        pytest.param(header(f"({2**70}, 0)"), b"", id="an axis beyond 64 bits"),
        pytest.param(header(f"({2**62}, 1024, 0)"), b"", id="axes whose product is beyond 64 bits"),
        pytest.param(header("(-1, 2)"), bytes(8), id="a negative axis"),
        pytest.param(header("(-1, -1)"), bytes(4), id="two negative axes"),
        pytest.param(header("(True, 2)"), bytes(8), id="an axis that is a boolean"),
        pytest.param(header("(1.0, 2)"), bytes(8), id="an axis that is a fraction"),
        pytest.param(header("2"), bytes(8), id="a shape that is no tuple"),
        pytest.param(header("(1,)", "('<f4', (2,))"), bytes(8), id="a datatype of arrays"),
        pytest.param(
            header("(1,)", "('<f4', (1000000000, 1000000000))"),
            bytes(8),
            id="a datatype of huge arrays",
        ),
        pytest.param(header("(1,)", "[('a', '<f4'), ('b', '<f4')]"), bytes(8), id="records"),
        pytest.param(header("(1, 2)", "'<U1'"), b"\xff" * 8, id="text that is no Unicode"),
        pytest.param(header("(1, 2)", "'|V4'"), bytes(8), id="raw bytes"),
        pytest.param(header("(1, 2)", "'<M8[s]'"), bytes(16), id="dates"),
        pytest.param(header("(1, 2)", "'<c8'"), bytes(16), id="complex numbers"),
        pytest.param(header("(1, 2)", "'|S0'"), b"", id="items of no size"),
        pytest.param(header("(1, 2)", "'no such type'"), bytes(8), id="an unknown datatype"),
        pytest.param(header("(1, 2)", order="7"), bytes(8), id="an order that is no boolean"),
        pytest.param("{'descr': '<f4'}\n", bytes(8), id="a header with holes"),
        pytest.param("__import__('os')\n", bytes(8), id="a header that is code"),
        pytest.param("(" * 9_000 + "\n", bytes(8), id="a header of parentheses"),
        pytest.param("#" * 1_025, bytes(8), id="a header of over 1 KiB"),
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_hostile_header_is_refused(text: str, data: bytes, version: tuple[int, int]) -> None:
    assert decoded_or_refused(npy.decode, crafted(text, data, version), one_input()) is None


@given(
    st.lists(st.integers(-(2**70), 2**70), max_size=70),
    st.sampled_from(["<f4", ">i8", "|b1", "<U2", "<m8", "|O"]),
)
def test_any_shape_and_type_in_the_header_is_an_array_or_refused(
    shape: list[int], descr: str
) -> None:
    decoded_or_refused(
        npy.decode, crafted(header(str(tuple(shape)), repr(descr)), bytes(8)), one_input()
    )


@pytest.mark.parametrize("version", [(9, 9), (2, 5), (0, 0)])
def test_a_version_of_the_format_that_numpy_does_not_know_is_refused(
    version: tuple[int, int],
) -> None:
    with pytest.raises(DecodingError, match="version"):
        npy.decode(Content(crafted(header("(1, 2)"), bytes(8), version)), one_input())


@pytest.mark.parametrize("shape", ["(1000000000, 1000)", "(2147483647,)"])
def test_a_promise_of_terabytes_costs_nothing(shape: str) -> None:
    with python_memory_below(MIB), pytest.raises(DecodingError, match="got 8"):
        npy.decode(Content(crafted(header(shape), bytes(8))), one_input())


def test_a_header_may_have_room_for_a_longer_one() -> None:
    text = header("(1, 2)").rstrip() + " " * 20_000 + "\n"
    assert npy.decode(Content(crafted(text, bytes(8))), one_input())["x"].shape == (1, 2)


def test_a_header_of_megabytes_is_refused_without_a_copy() -> None:
    body = memoryview(crafted(" " * (8 * MIB), bytes(8), (2, 0)))
    with python_memory_below(MIB), pytest.raises(DecodingError, match="65535; got 8388608"):
        npy.decode(Content(body), one_input())


class _Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_a_pickle_of_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    body = crafted(
        header("(1, 2)", "'|O'"), pickle.dumps(np.array([[_Writes(ran), 1]], dtype=object))
    )
    with pytest.raises(DecodingError, match="expected an array of numbers; got dtype object"):
        npy.decode(Content(body), one_input())
    assert not ran.exists()


def test_an_archive_of_arrays_is_refused() -> None:
    file = BytesIO()
    np.savez(file, x=np.zeros((1, 2), "<f4"))
    with pytest.raises(DecodingError, match=r"expected a \.npy file"):
        npy.decode(Content(file.getvalue()), one_input())


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_dims=3, max_side=3)))
def test_an_array_of_another_dtype_or_shape_is_refused(array: Array) -> None:
    file = BytesIO()
    np.save(file, array)
    inputs = decoded_or_refused(npy.decode, file.getvalue(), one_input())
    assert (inputs is not None) == (
        array.dtype.newbyteorder("<") == np.dtype("<f4") and array.shape[1:] == (2,)
    )


def test_the_declared_dtype_and_shape_are_named_beside_those_that_came() -> None:
    with pytest.raises(InvalidInput, match=r"input 'x': expected FP32\[-1,2\]; got FP64\[1,3\]"):
        check_inputs(one_input(), npy.decode(Content(saved(np.zeros((1, 3)))), one_input()))


def test_a_boolean_byte_other_than_0_and_1_never_reaches_the_model() -> None:
    inputs = decoded_or_refused(
        npy.decode, crafted(header("(1, 2)", "'|b1'"), b"\x02\x01"), one_input("BOOL")
    )
    assert inputs is None or inputs["x"].view("u1").max() <= 1


def test_it_carries_one_tensor_of_numbers() -> None:
    assert npy.carries((tensor("x", "FP32", (-1, -1)),))
    assert not npy.carries((tensor("x", "BYTES", (1,)),))
    assert not npy.carries((tensor("x"), tensor("y")))
