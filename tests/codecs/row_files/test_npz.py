"""Rows of numpy's files, both ways."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from batcher.codecs.row_files.npz_reading import NpzReader
from batcher.codecs.row_files.npz_writing import NpzWriter
from batcher.core.portions import Answer, Group, Portion
from batcher.core.request import InferenceResponse
from batcher.errors import ClientError, InvalidInput
from tests.support.models import model_spec, tensor

SPEC = model_spec((tensor("x", "FP32", (2,)), tensor("t", "BYTES", ())))
X = np.arange(10, dtype="f4").reshape(5, 2)
T = np.array(["a", "bb", "ü", "", "e"])


def saved(compressed: bool = False, **arrays: Any) -> BytesIO:
    file = BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_read_a_portion_at_a_time_from_any_row_on(compressed: bool) -> None:
    reader = NpzReader(saved(compressed, x=X, t=T), SPEC)
    first = reader.read([0], 2)
    assert first is not None
    assert list(first.places) == [1, 2]
    assert first.after == [2]
    (group,) = first.groups
    assert group.inputs["x"].tolist() == [[0, 1], [2, 3]]
    assert group.inputs["t"].tolist() == [b"a", b"bb"]
    last = reader.read([4], 2)
    assert last is not None
    assert last.groups[0].inputs["x"].tolist() == [[8, 9]]
    assert last.done == 1.0
    again = reader.read([2], 1)
    assert again is not None
    assert again.groups[0].inputs["t"].tolist() == ["ü".encode()]
    assert reader.read([5], 2) is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "expected inputs 'x', 't'; got 'x'"),
        ({"x": X.astype("f8"), "t": T}, r"input 'x': expected FP32\[-1,2\]; got FP64"),
        ({"x": X[:4], "t": T}, "expected arrays of as many rows; got 'x' 4, 't' 5"),
        ({"x": np.asfortranarray(X), "t": T}, "ascontiguousarray"),
        ({"x": X, "t": T.astype(object)}, "can run code"),
    ],
    ids=["names", "dtype", "rows", "columns", "objects"],
)
def test_a_file_of_other_arrays_is_refused_before_any_row(
    arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        NpzReader(saved(**arrays), SPEC)


def test_what_is_no_file_of_arrays_is_refused() -> None:
    with pytest.raises(ClientError, match=r"expected a file of numpy\.savez"):
        NpzReader(BytesIO(b"PK"), SPEC)


def answer(rows: list[int], values: Any) -> Answer:
    return Answer(rows, InferenceResponse("m", "1", {"y": np.array(values, "f4")}, 0, 0, 1))


def portion(rows: int) -> Portion:
    return Portion(range(rows), [Group(range(rows), {})], {}, [rows], 1.0)


def test_answers_of_several_requests_are_put_in_order_and_one_file() -> None:
    spec = model_spec(outputs=(tensor("y", "FP32", (1,)),))
    writer = NpzWriter(spec, {})
    first = writer.write(portion(3), [answer([0, 2], [[1], [3]]), answer([1], [[2]])])
    assert list(writer.state.items()) == [("rows", 3), ("shapes", {"y": [1]})]
    writer = NpzWriter(spec, writer.state)
    second = writer.write(portion(2), [answer([1], [[5]])])
    wrong = writer.write(portion(1), [answer([0], [[5, 6]])])
    assert "expected rows of the shape of the first, [1]; got [2]" in str(wrong.refused[0])
    file = BytesIO()
    assert writer.assemble is not None
    writer.assemble([BytesIO(first.parts[0] + second.parts[0] + wrong.parts[0])], file)
    file.seek(0)
    assert np.load(file)["y"].tolist() == [[1], [2], [3], [5]]


def test_outputs_of_texts_are_refused_with_what_holds_them() -> None:
    with pytest.raises(InvalidInput, match="JSON lines and CSV hold"):
        NpzWriter(model_spec(outputs=(tensor("y", "BYTES", ()),)), {})


@pytest.mark.parametrize("shape", ["(1, 99999999999)", "(-1, 2)", "(1, -2, -3)"])
def test_a_head_of_rows_that_cannot_be_is_refused_before_memory_is_taken(shape: str) -> None:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    head += b" " * (118 - len(head) - 1) + b"\n"
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(ClientError, match=r"rows of at|expected a file of numpy"):
        NpzReader(file, model_spec((tensor("x", "FP32", (-1,)),)))


def test_a_head_of_gigabytes_is_not_read() -> None:
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\x7f")
    with pytest.raises(ClientError, match="expected a head of few bytes"):
        NpzReader(file, model_spec((tensor("x", "FP32", (2,)),)))
