"""Rows of Parquet, both ways."""

from __future__ import annotations

from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
import pytest

from batcher.codecs.row_files import parquet_reading
from batcher.codecs.row_files.parquet_reading import ParquetReader
from batcher.codecs.row_files.parquet_writing import ParquetWriter
from batcher.core.portions import Answer, Portion
from batcher.core.request import InferenceResponse
from batcher.core.spec import ModelSpec, TensorSpec
from batcher.errors import ClientError, InvalidInput
from tests.support.models import model_spec, tensor

pa: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")

SPEC = model_spec((tensor("x", "FP32", (2,)), tensor("n", "INT64", ()), tensor("t", "BYTES", ())))
FLOATS = pa.list_(pa.float32())


def saved(rows_of_group: int = 3, **columns: Any) -> BytesIO:
    file = BytesIO()
    parquet.write_table(pa.table(columns), file, row_group_size=rows_of_group)
    return file


def table(rows: int) -> dict[str, Any]:
    return {
        "x": pa.array([[row, row + 0.5] for row in range(rows)], FLOATS),
        "n": pa.array(range(rows), pa.int64()),
        "t": pa.array([f"ü{row}" for row in range(rows)]),
    }


def values(portion: Portion | None, name: str) -> list[Any]:
    assert portion is not None
    return [row for group in portion.groups for row in group.inputs[name].tolist()]


def test_columns_are_read_a_portion_at_a_time_from_any_row_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_reading, "READ_ROWS", 2)
    reader = ParquetReader(saved(**table(8)), SPEC)
    first = reader.read([0], 5)
    assert values(first, "x") == [[row, row + 0.5] for row in range(5)]
    assert values(first, "t") == [f"ü{row}".encode() for row in range(5)]
    last = reader.read([5], 5)
    assert values(last, "n") == [5, 6, 7]
    assert last is not None
    assert (list(last.places), last.after, last.done) == ([6, 7, 8], [8], 1.0)
    assert reader.read([8], 5) is None
    for row in range(8):
        assert values(ParquetReader(saved(**table(8)), SPEC).read([row], 1), "n") == [row]


def test_rows_with_nulls_and_other_lengths_are_refused_by_themselves() -> None:
    columns = table(4)
    columns["x"] = pa.array([[0, 1], [2], [3, None], [4, 5]], FLOATS)
    columns["t"] = pa.array(["a", "b", "c", None])
    portion = ParquetReader(saved(**columns), SPEC).read([0], 4)
    assert values(portion, "x") == [[0, 1]]
    assert portion is not None
    assert sorted(portion.bad) == [1, 2, 3]
    assert "expected FP32[-1,2]; got FP32[1,1]" in str(portion.bad[1])
    assert "expected a value; got null" in str(portion.bad[2])
    assert "send an empty one" in str(portion.bad[3])


def test_a_null_is_not_a_number_where_the_input_says_so() -> None:
    spec = model_spec((tensor("x", "FP32", (1,), missing_is_nan=True),))
    portion = ParquetReader(saved(x=pa.array([1, None], pa.float32())), spec).read([0], 2)
    ((one,), (missing,)) = values(portion, "x")
    assert one == 1
    assert np.isnan(missing)


def test_lists_of_lists_and_of_texts_are_rows_with_axes() -> None:
    spec = model_spec((tensor("x", "INT32", (2, 2)), tensor("t", "BYTES", (2,))))
    rows = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    columns = {
        "x": pa.array(rows, pa.list_(pa.list_(pa.int32()))),
        "t": pa.array([["a", "b"], ["c", "d"]]),
    }
    portion = ParquetReader(saved(**columns), spec).read([0], 2)
    assert values(portion, "x") == rows
    assert values(portion, "t") == [[b"a", b"b"], [b"c", b"d"]]


@pytest.mark.parametrize(
    ("inputs", "columns", "message"),
    [
        (tensor("x", "FP32", ()), {"y": pa.array([1.0])}, "expected inputs 'x'; got 'y'"),
        (
            tensor("x", "FP32", ()),
            {"x": pa.array([1.0])},
            "input 'x': expected a column of float for FP32; got double",
        ),
        (tensor("x", "BYTES", ()), {"x": pa.array([1])}, "expected a column of binary for BYTES"),
        (tensor("x", "BF16", ()), {"x": pa.array([1], pa.uint16())}, "Parquet has no BF16"),
    ],
    ids=["name", "dtype", "text", "bf16"],
)
def test_columns_of_other_kinds_are_refused_before_any_row(
    inputs: TensorSpec, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        ParquetReader(saved(**columns), model_spec((inputs,)))


def test_what_is_no_parquet_is_refused() -> None:
    with pytest.raises(ClientError, match="expected a Parquet file"):
        ParquetReader(BytesIO(b"PAR1"), SPEC)


def answer(rows: list[int], **outputs: Any) -> Answer:
    return Answer(rows, InferenceResponse("m", "1", outputs, 0, 0, 1))


def written(spec: ModelSpec, *portions: tuple[int, list[Answer]]) -> Any:
    """Return the table that the writers of several runs make together."""
    text = b""
    for rows, answers in portions:
        writer = ParquetWriter(spec, {})
        text += writer.write(Portion(range(rows), [], {}, [0], 1.0), answers).parts[0]
    file = BytesIO()
    assert writer.assemble is not None
    writer.assemble([BufferedReader(BytesIO(text))], file)  # type: ignore[arg-type]  # as a file is
    file.seek(0)
    return parquet.read_table(file)


def test_types_survive_and_rows_without_an_answer_are_null() -> None:
    outputs = (tensor("y", "FP32", (2,)), tensor("n", "INT8", (1,)), tensor("t", "BYTES", ()))
    y, n = np.array([[1, 2], [3, 4]], "f4"), np.array([[5], [6]], "i1")
    t = np.array([b"a", "ü".encode()], object)
    found = written(
        model_spec(outputs=outputs),
        (2, [answer([0, 1], y=y, n=n, t=t)]),
        (3, [answer([2], y=y[:1], n=n[:1], t=t[:1]), answer([0], y=y[1:], n=n[1:], t=t[1:])]),
    )
    assert found.schema.field("y").type == FLOATS
    assert found.schema.field("n").type == pa.int8()
    assert found.column("y").to_pylist() == [[1, 2], [3, 4], [3, 4], None, [1, 2]]
    assert found.column("n").to_pylist() == [5, 6, 6, None, 5]
    assert found.column("t").to_pylist() == ["a", "ü", "ü", None, "a"]


def test_rows_of_several_axes_and_lengths_are_lists() -> None:
    outputs = (tensor("y", "FP32", (2, 2)), tensor("z", "INT64", (-1,)))
    z = np.empty(2, object)
    z[0], z[1] = np.array([1]), np.array([2, 3])
    found = written(
        model_spec(outputs=outputs), (2, [answer([0, 1], y=np.ones((2, 2, 2), "f4"), z=z)])
    )
    assert found.column("y").to_pylist() == [[[1, 1], [1, 1]]] * 2
    assert found.column("z").to_pylist() == [[1], [2, 3]]


def test_texts_that_are_no_utf_8_are_refused() -> None:
    writer = ParquetWriter(model_spec(outputs=(tensor("t", "BYTES", ()),)), {})
    portion = Portion([1], [], {}, [0], 1.0)
    refused = writer.write(portion, [answer([0], t=np.array([b"\xff"], object))]).refused
    assert "expected UTF-8 for Parquet" in str(refused[0])


def test_an_output_of_bfloat16_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="output 'y': Parquet has no BF16"):
        ParquetWriter(model_spec(outputs=(tensor("y", "BF16", ()),)), {})


def test_a_text_that_is_no_utf_8_fails_its_own_row_alone() -> None:
    spec = model_spec(outputs=(tensor("t", "BYTES", ()), tensor("y", "FP32", (1,))))
    texts = np.array([b"a", b"\xff", b"c"], object)
    answers = [answer([0, 1, 2], t=texts, y=np.ones((3, 1), "f4"))]
    found = ParquetWriter(spec, {}).write(Portion(range(3), [], {}, [0], 1.0), answers)
    assert list(found.refused) == [1]
    table = written(spec, (3, answers))
    assert table.column("t").to_pylist() == ["a", None, "c"]
    assert table.column("y").to_pylist() == [1, None, 1]


def test_large_rows_are_decoded_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_reading, "READ_BYTES", 1)
    reader = ParquetReader(saved(**table(8)), SPEC)
    assert reader._rows_at_once(0) == 1
    assert values(reader.read([0], 5), "n") == [0, 1, 2, 3, 4]
