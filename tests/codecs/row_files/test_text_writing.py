"""Answers as lines: line n of the output is of row n, whatever became of the row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from batcher.codecs.row_files.text_writing import CsvWriter, JsonLinesWriter
from batcher.core.portions import Answer, Place, Portion
from batcher.core.request import InferenceResponse
from tests.support.models import model_spec, tensor

ONE = model_spec(outputs=(tensor("y", "FP32", (1,)),))
TWO = model_spec(outputs=(tensor("y", "FP32", (2,)), tensor("t", "BYTES", ())))
ANY = model_spec(outputs=(tensor("y", "FP32", (-1,)),))


def answer(rows: list[int], **outputs: Any) -> Answer:
    arrays = {
        name: np.array(values, object if name == "t" else "f4") for name, values in outputs.items()
    }
    return Answer(rows, InferenceResponse("m", "1", arrays, 0, 0, 1))


def portion(places: Sequence[Place]) -> Portion:
    return Portion(places, [], {}, [0], 1.0)


def written(writer: JsonLinesWriter | CsvWriter, rows: int, *answers: Answer) -> str:
    return writer.write(portion(range(1, rows + 1)), answers).parts[0].decode()


def test_a_row_without_an_answer_is_null_in_json_lines() -> None:
    text = written(JsonLinesWriter(ONE, {}), 3, answer([2], y=[[3]]), answer([0], y=[[1]]))
    assert [json.loads(line) for line in text.splitlines()] == [{"y": [1]}, None, {"y": [3]}]
    assert text.endswith("\n")


def test_a_row_that_is_a_file_has_its_name_in_the_line() -> None:
    places = ["a.png", "b.png"]
    answers = [answer([1], y=[[2]])]
    lines = JsonLinesWriter(ONE, {}).write(portion(places), answers).parts[0].splitlines()
    assert lines == [b'{"file":"a.png"}', b'{"file":"b.png","y":[2.0]}']
    table = CsvWriter(ONE, {}).write(portion(["a,1.png", "b.png"]), answers).parts[0]
    assert table == b'file,y\n"a,1.png",""\nb.png,2.0\n'
    writer = CsvWriter(ONE, {})
    assert writer.write(portion(["a,1.png"]), []).parts == [b""]
    writer = CsvWriter(ONE, json.loads(json.dumps(writer.state)))
    more = writer.write(portion(["b.png"]), [answer([0], y=[[2]])]).parts[0]
    assert more == table


def test_a_table_has_one_header_and_empty_cells_for_rows_without_an_answer() -> None:
    writer = CsvWriter(TWO, {})
    first = answer([1], y=[[1, 2]], t=[b"two\nlines"])
    text = written(writer, 2, first)
    assert text == 'y[0],y[1],t\n,,\n1.0,2.0,"two\nlines"\n'
    more = written(CsvWriter(TWO, writer.state), 1, answer([0], y=[[3, 4]], t=[b"x"]))
    assert more == "3.0,4.0,x\n"


def test_rows_before_the_first_answer_wait_for_the_header() -> None:
    writer = CsvWriter(ONE, {})
    assert written(writer, 2) == ""
    writer = CsvWriter(ONE, json.loads(json.dumps(writer.state)))
    assert written(writer, 1, answer([0], y=[[1]])) == 'y\n""\n""\n1.0\n'


def test_rows_of_other_cells_than_the_first_are_refused_in_a_table() -> None:
    writer = CsvWriter(ANY, {})
    assert written(writer, 1, answer([0], y=[[1, 2]])) == "y[0],y[1]\n1.0,2.0\n"
    refused = writer.write(portion([2]), [answer([0], y=[[1]])])
    assert refused.parts == [b",\n"]
    assert "expected the cells of the first row, y[0],y[1]; got y" in str(refused.refused[0])


def test_a_whole_portion_is_written_as_the_format_writes_a_body() -> None:
    assert written(JsonLinesWriter(ONE, {}), 2, answer([0, 1], y=[[1], [2]])) == (
        '{"y":[1.0]}\n{"y":[2.0]}\n'
    )
