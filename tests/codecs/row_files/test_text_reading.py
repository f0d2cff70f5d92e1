"""Rows of JSON lines and of CSV, a portion at a time."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from batcher.codecs.row_files import lines as row_lines
from batcher.codecs.row_files import text_reading
from batcher.codecs.row_files.named_files import AT_ONCE, NamedFiles
from batcher.codecs.row_files.text_reading import TextReader, csv_reader, json_lines_reader
from batcher.core.portions import Portion
from batcher.core.spec import ModelSpec
from batcher.errors import ClientError, InputMissing, InputSourceFailed, InvalidInput
from tests.codecs.formats.test_references import ROWS, npy, ref
from tests.codecs.row_files.test_batches import Shelf
from tests.support.models import model_spec, tensor

SPEC = model_spec((tensor("x", "FP32", (2,)),))
ANY = model_spec((tensor("x", "FP32", (-1,)),))
TABLE = model_spec((tensor("a", "INT32", ()), tensor("b", "BYTES", ())))
TEXT = model_spec((tensor("text", "BYTES", (1,)),))


def json_reader(text: bytes, spec: ModelSpec = SPEC) -> TextReader:
    return json_lines_reader(BytesIO(text), spec, 1000)


def portions(reader: TextReader, rows: int) -> list[Portion]:
    found, position = [], reader.begin
    while (portion := reader.read(position, rows)) is not None:
        found.append(portion)
        position = portion.after
    return found


def values(portion: Portion, name: str = "x") -> list[object]:
    """Return the good rows of a portion in their order."""
    by_row = {
        row: value
        for group in portion.groups
        for row, value in zip(group.rows, group.inputs[name].tolist(), strict=True)
    }
    return [by_row[row] for row in sorted(by_row)]


def test_a_portion_has_the_rows_that_were_asked_for_and_says_where_the_next_begins() -> None:
    first, second = portions(json_reader(b"[1,2]\n[3,4]\r\n\n[5,6]"), 2)
    assert values(first) == [[1, 2], [3, 4]]
    assert first.places == [1, 2]
    assert first.after == [13, 2]
    assert values(second) == [[5, 6]]
    assert second.places == [4]
    assert second.done == 1.0


def test_two_rows_in_a_line_and_one_in_two_lines_are_no_rows() -> None:
    (portion,) = portions(json_reader(b"[1,2],[3,4]\n[5\n6]\n[7,8]\n"), 4)
    assert sorted(portion.bad) == [0, 1, 2]
    assert values(portion) == [[7, 8]]


def test_bad_lines_are_named_and_others_fill_their_places() -> None:
    text = b"[1,2]\n[1]\n{no\n[3,4]\n[5,6]\n[7,8]\n"
    first, second = portions(json_reader(text), 3)
    assert first.places == [1, 2, 3, 4, 5]
    assert values(first) == [[1, 2], [3, 4], [5, 6]]
    assert [len(group.rows) for group in first.groups] == [3]
    assert sorted(first.bad) == [1, 2]
    assert str(first.bad[1]) == "input 'x': expected FP32[-1,2]; got FP32[1,1]"
    assert "expected JSON" in str(first.bad[2])
    assert values(second) == [[7, 8]]


def test_a_file_of_bad_lines_alone_is_read_in_bounded_portions() -> None:
    found = portions(json_reader(b"x\n" * 20), 2)
    assert [len(portion.places) for portion in found] == [8, 8, 4]
    assert all(not portion.groups for portion in found)


def test_rows_of_several_shapes_are_groups_of_one_shape_each() -> None:
    (portion,) = portions(json_reader(b"[1]\n[2,3]\n[4]\n", ANY), 5)
    shapes = {group.inputs["x"].shape: list(group.rows) for group in portion.groups}
    assert shapes == {(2, 1): [0, 2], (1, 2): [1]}


def test_reading_goes_on_in_another_reader_where_a_portion_ended() -> None:
    text = b"".join(b"[%d, %d]\n" % (row, row) for row in range(10))
    before = json_reader(text).read([0, 0], 4)
    assert before is not None
    after = json_reader(text).read(before.after, 4)
    assert after is not None
    assert values(after) == [[row, row] for row in range(4, 8)]
    assert after.places == [5, 6, 7, 8]


def test_a_line_that_is_too_long_is_refused_without_being_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_lines, "MAX_LINE_BYTES", 16)
    (portion,) = portions(json_reader(b"[1,2]\n" + b"[1,2" + b" " * 100 + b"]\n[3,4]\n"), 5)
    assert values(portion) == [[1, 2], [3, 4]]
    assert str(portion.bad[1]) == "expected a line of at most 16 bytes; got a longer one"
    assert portion.places == [1, 2, 3]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_header_of_csv_holds_for_every_portion(mark: bytes, end: bytes) -> None:
    lines = [b"b,a", b"one,1", b'"two\nlines",2', b"x,y", b"three,3", b""]
    reader = csv_reader(BytesIO(mark + end.join(lines)), TABLE, "")
    first, second = portions(reader, 2)
    assert values(first, "a") == [1, 2]
    assert values(first, "b") == [b"one", b"two\nlines"]
    assert first.places == [2, 3]
    assert values(second, "a") == [3]
    assert second.places == [5, 6]
    assert "'y'" in str(second.bad[0])


def test_csv_without_a_header_begins_with_its_first_line() -> None:
    (portion,) = portions(csv_reader(BytesIO(b"1,2\n3,x\n5,6\n"), SPEC, ""), 9)
    assert values(portion) == [[1, 2], [5, 6]]
    assert portion.places == [1, 2, 3]
    assert list(portion.bad) == [1]
    # The place is the line's number in the file, so the text has no other one.
    assert str(portion.bad[1]).startswith("cell 2: expected ")


def test_the_caller_says_whether_there_is_a_header_where_the_file_does_not() -> None:
    (portion,) = portions(csv_reader(BytesIO(b"text\nmore\n"), TEXT, "absent"), 9)
    assert values(portion, "text") == [[b"text"], [b"more"]]
    (portion,) = portions(csv_reader(BytesIO(b"words\nmore\n"), TEXT, "present"), 9)
    assert values(portion, "text") == [[b"more"]]


def test_a_header_of_other_names_is_refused_before_any_row() -> None:
    with pytest.raises(InvalidInput, match="expected a header of a, b"):
        csv_reader(BytesIO(b"a,c\n1,2\n"), TABLE, "")
    with pytest.raises(ClientError, match="expected a header of names"):
        csv_reader(BytesIO(b""), TABLE, "")


def test_a_quote_that_nothing_closes_is_passed_over_in_time_linear_in_the_file() -> None:
    text = b'1,2\n3,"4\n' + b"5,6\n" * 300_000
    (portion,) = portions(csv_reader(BytesIO(text), SPEC, "absent"), 9)
    assert values(portion) == [[1, 2]]
    assert list(portion.bad) == [1]


def test_two_rows_in_a_line_and_one_in_two_lines_do_not_change_the_places_of_others() -> None:
    spec = model_spec(tuple(tensor(name, "BYTES", ()) for name in "abc"))
    text = b'1,2,3\r4,5,6\n7,8,9\na"b,"c\nd",x"y\n'
    (portion,) = portions(csv_reader(BytesIO(text), spec, "absent"), 9)
    assert portion.places == [1, 2, 3, 4]
    assert sorted(portion.bad) == [0, 2, 3]
    assert [list(group.rows) for group in portion.groups] == [[1]]
    assert values(portion, "a") == [b"7"]


def naming_reader(shelf: Shelf, *lines: Any) -> TextReader:
    """Return a reader of lines for four numbers, which may name the files of `shelf`."""
    text = b"\n".join(json.dumps(line).encode() for line in lines)
    files = NamedFiles(shelf.fetch, shelf.run)
    return json_lines_reader(BytesIO(text), model_spec(), 1000, files)


def test_a_line_names_a_file_in_place_of_its_row_or_of_a_value() -> None:
    shelf = Shelf()
    named = ("row.npy", "none", "down", "rows.npy", "row.json")
    row, none, down, two, text = map(ref, named)
    rows: list[Any] = [row, [0, 0, 0, 0], none, {"x": ref("one.npy")}, down, two, text]
    rows.append([1, 1, 1, 1])
    first, second = portions(naming_reader(shelf, *rows), 4)
    right = ROWS[1].tolist()
    assert values(first) == [right, [0, 0, 0, 0], right, right]
    assert {row: type(error) for row, error in first.bad.items()} == {
        2: InputMissing,
        4: InputSourceFailed,
        5: InvalidInput,
    }
    assert str(first.bad[5]) == "input 'x', 's3://p/rows.npy': expected one row; got 2"
    assert (first.places, second.places) == ([1, 2, 3, 4, 5, 6, 7], [8])
    assert [len(group.rows) for group in first.groups] == [4]


def test_lines_that_name_files_wait_for_them_some_at_a_time() -> None:
    shelf = Shelf()
    lines = [ref("row.npy")] * (2 * AT_ONCE + 1) + [[0, 0, 0, 0]]
    (portion,) = portions(naming_reader(shelf, *lines), 100)
    assert shelf.most == [AT_ONCE, AT_ONCE, 2]
    assert [len(group.rows) for group in portion.groups] == [2 * AT_ONCE + 2]


def test_what_named_files_become_ends_a_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reading, "PORTION_BYTES", 4000)
    wide = model_spec((tensor("x", "FP32", (240,)),))
    file = npy(np.zeros(240, "<f4"))  # 960 bytes
    files = NamedFiles(lambda all: dict.fromkeys(all, file), lambda tasks, _: [t() for t in tasks])
    text = b'{"ref": "s3://p/x"}\n' * 20
    found = portions(json_lines_reader(BytesIO(text), wide, 1000, files), 100)
    assert [len(portion.places) for portion in found] == [8, 8, 4]


def test_without_files_an_address_is_no_row() -> None:
    (portion,) = portions(json_reader(b'{"ref": "s3://p/row.npy"}\n'), 4)
    assert isinstance(portion.bad[0], ClientError)
