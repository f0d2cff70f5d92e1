"""`text/csv`, with Python's csv module as the client."""

from __future__ import annotations

import csv
import math
from io import StringIO
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import csv_answers, csv_rows
from batcher.core.spec import Array, Labels, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput
from tests.support.codec_inputs import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    arrays,
    damaged,
    decoded_or_refused,
    one_input,
    response,
    same,
)
from tests.support.models import model_spec, tensor

BODIES = [b"1,2\n3,4\n", b"a,b\r\n1.5,-2e3\r\n", b'"1","2"\n\n nan ,inf\n', "\ufeff1,2\n".encode()]


def decode(body: bytes | str, spec: ModelSpec, charset: str | None = None) -> dict[str, Array]:
    parameters = {} if charset is None else {"charset": charset}
    content = Content(body.encode() if isinstance(body, str) else body, "text/csv", parameters)
    inputs = csv_rows.decode(content, spec)
    check_inputs(spec, inputs)
    return inputs


def values(body: bytes | str, dtype: str = "FP32", shape: tuple[int, ...] = (2,)) -> Any:
    return decode(body, one_input(dtype, shape))["x"].tolist()


def written(rows: list[list[Any]], **options: Any) -> str:
    out = StringIO()
    csv.writer(out, **options).writerows(rows)
    return out.getvalue()


def answered(spec: ModelSpec, **outputs: Array) -> list[list[str]]:
    body = bytes(csv_answers.encode(response(**outputs), spec)).decode()
    return list(csv.reader(StringIO(body, newline=""), strict=True))


@st.composite
def numeric_rows(draw: st.DrawFn) -> tuple[ModelSpec, Array]:
    """Draw a model of one input of numbers and rows for it; BF16 only in numbers that it has."""
    dtype = draw(st.sampled_from(NUMBERS))
    shape = draw(st.lists(st.integers(1, 3), max_size=3).map(tuple))
    free = draw(st.integers(-1, len(shape) - 1))
    row_shape = (*shape[:free], -1, *shape[free + 1 :]) if free >= 0 else shape
    array = draw(arrays(dtype, (draw(st.integers(1, 4)), *shape), finite=dtype == "BF16"))
    if dtype in FLOATS:
        array = np.where(
            np.isnan(array), np.array(math.nan, array.dtype), array
        )  # text has one NaN only
    return one_input(dtype, row_shape), array


@given(numeric_rows())
def test_an_answer_that_is_sent_back_is_the_array_to_the_last_bit(
    drawn: tuple[ModelSpec, Array],
) -> None:
    spec, array = drawn
    inputs = csv_rows.decode(Content(csv_answers.encode(response(x=array), spec)), spec)
    assert check_inputs(spec, inputs) == len(array)
    same(inputs["x"], array)


@given(
    st.data(),
    st.sampled_from([*FLOATS, *INTEGERS]),
    st.sampled_from(["\r\n", "\n"]),
    st.sampled_from([0, 1, 2, 3]),
)
def test_what_the_csv_module_writes_arrives_exactly(
    data: st.DataObject, dtype: str, ending: str, quoting: int
) -> None:
    array = data.draw(arrays(dtype, (2, 3), finite=True))
    body = written(array.tolist(), lineterminator=ending, quoting=quoting)
    same(decode(body, one_input(dtype, (3,)))["x"], array)


@given(st.data(), st.sampled_from(["\r\n", "\n"]))
def test_any_text_arrives_when_it_is_quoted(data: st.DataObject, ending: str) -> None:
    array = data.draw(arrays("BYTES", (2, 2)))
    array = np.array(
        [[cell.decode().strip().encode() for cell in row] for row in array], dtype=object
    )
    body = written(
        [[cell.decode() for cell in row] for row in array],
        lineterminator=ending,
        quoting=csv.QUOTE_ALL,
    )
    same(decode(body, one_input("BYTES", (2,)))["x"], array)


def test_any_bytes_are_answered_as_quoted_cells() -> None:
    found = answered(one_input("BYTES", (2,)), x=np.array([[b'a,"b"\n', b"\xff"]], dtype=object))
    assert found == [["x[0]", "x[1]"], ['a,"b"\n', "\ufffd"]]


@pytest.mark.parametrize(
    "body",
    [
        "1,2\n3,4\n",
        "1,2\n3,4",
        "1,2\r\n3,4\r\n",
        "1,2\r3,4\r",
        "\ufeff1,2\n3,4\n",
        "a,b\n1,2\n3,4\n",
        "\ufeffa,b\r\n1,2\r\n3,4\r\n",
        '"a, the first","b"\n1,2\n3,4\n',
        '"1","2"\n"3",4\n',
        " 1 ,\t2\n 3, 4 \n",
        "\n1,2\n\n\n3,4\n\n",
        "1.0,2e0\n0.3e1,+4\n",
    ],
)
def test_two_rows_are_two_rows_however_they_are_written(body: str) -> None:
    assert values(body) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "charset", ["utf-8", "UTF8", "utf_8", "utf-16", "utf-16-le", "latin-1", "windows-1252"]
)
def test_a_body_is_read_in_its_charset(charset: str) -> None:
    found = decode("ä,é\n".encode(charset), one_input("BYTES", (2,)), charset)
    assert found["x"].tolist() == [["ä".encode(), "é".encode()]]


@pytest.mark.parametrize("charset", ["utf-8", "utf8", "utf_8", "U8"])
def test_a_byte_order_mark_is_no_part_of_the_first_cell(charset: str) -> None:
    assert decode("\ufeff1,2\n".encode(), one_input("BYTES", (2,)), charset)["x"].tolist() == [
        [b"1", b"2"]
    ]


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("nope", b"1,2"),
        ("", b"1,2"),
        ("hex", b"31"),
        ("utf-8", b"\xff,2"),
        ("utf-16", b"1,2"),
        ("undefined", b"1,2"),
        ("punycode", b'1,2-"'),
        ("utf-7", b"+2AA-,2"),
        ("a\0b", b"1,2"),
    ],
)
@pytest.mark.parametrize("dtype", ["FP32", "BYTES"])
def test_a_charset_that_cannot_be_read_is_refused_by_its_name(
    charset: str, body: bytes, dtype: str
) -> None:
    with pytest.raises(DecodingError, match="expected"):
        decode(body, one_input(dtype), charset)


@pytest.mark.parametrize(
    ("dtype", "cell", "value"),
    [
        ("FP32", "nan", math.nan),
        ("FP64", "NaN", math.nan),
        ("FP32", "inf", math.inf),
        ("FP64", "-Infinity", -math.inf),
        ("FP64", "1e-400", 0.0),
        ("FP64", "100000000000000000000", 1e20),
        ("FP32", "-18446744073709551616", -(2.0**64)),
        ("FP64", "1" + "0" * 300, 1e300),
        ("INT32", "1e3", 1000),
        ("INT64", "9223372036854775807", 2**63 - 1),
        ("UINT64", "18446744073709551615", 2**64 - 1),
        ("UINT8", "007", 7),
        ("BOOL", "TRUE", True),
        ("BOOL", "0", False),
        ("BYTES", " a b ", b"a b"),
        ("BYTES", "", b""),
    ],
)
def test_a_cell_is_read_as_the_datatype_says(dtype: str, cell: str, value: Any) -> None:
    beside = {"BOOL": "1", "BYTES": "z"}.get(dtype, "1")
    found = values(f"{beside},{cell}\n", dtype)[0][1]
    assert found == value or (found != found and value != value)


@pytest.mark.parametrize(
    ("dtype", "cell", "complaint"),
    [
        ("FP32", "", r"line 2, cell 2: expected FP32 for 'x'; got ''"),
        ("FP32", "abc", "line 2, cell 2: expected FP32 for 'x'; got 'abc'"),
        ("FP32", "1;2", "got '1;2'. Cells are separated by commas, not by ';'"),
        ("FP32", "1_000", "line 2, cell 2: expected FP32 for 'x'; got '1_000'"),
        ("INT32", "1_0", "line 2, cell 2: expected INT32 for 'x'; got '1_0'"),
        ("FP32", "true", "line 2, cell 2: expected FP32 for 'x'; got 'true'"),
        ("FP32", "0x10", "got '0x10'"),
        ("FP32", "1,5", "line 2: expected 2 cells"),
        ("BOOL", "2", "line 2, cell 2: expected BOOL for 'x'; got '2'"),
        ("BOOL", "", "line 2, cell 2: expected BOOL for 'x'; got ''"),
        ("INT32", "1.5", "expected a whole number for INT32; got 1.5"),
        ("INT32", "nan", "expected a whole number for INT32; got nan"),
        ("UINT8", "256", "expected 0 to 255 for UINT8; got 256"),
        ("INT64", "9223372036854775808", "for INT64; got 9223372036854775808"),
        ("INT8", "1" + "0" * 30, "for INT8; got 10000"),
        ("FP16", "1e5", "for FP16; got 100000"),
        ("FP64", "1e999", "for .*; got"),
        ("FP64", "1" * 400, "for .*; got"),
        ("FP64", "1" * 5000, "for .*; got"),
    ],
)
def test_a_cell_that_the_datatype_does_not_take_is_refused_with_its_place(
    dtype: str, cell: str, complaint: str
) -> None:
    beside = "1"
    with pytest.raises((DecodingError, InvalidInput), match=complaint) as refusal:
        values(f"{beside},{beside}\n{beside},{cell}\n", dtype)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("1,2\n\n\n1,x\n", 4),
        ("a,b\n\n1,2\n1,x\n", 4),
        ("1,2\r\n\r\n1\r\n", 3),
        ('"a\nb",c\n1,x\n', 3),
    ],
)
def test_the_line_that_is_named_is_the_line_of_the_file(body: str, line: int) -> None:
    with pytest.raises(DecodingError, match=f"line {line}[:,]"):
        values(body)


@pytest.mark.parametrize(
    ("shape", "body", "complaint"),
    [
        ((2,), "1\n", r"line 1: expected 2 cells for FP32\[-1,2\]; got 1"),
        ((2,), "1,2,3\n", r"line 1: expected 2 cells for FP32\[-1,2\]; got 3"),
        ((2,), "1,2,\n", "line 1"),
        # what `curl -d @file` makes of two and three lines
        ((4,), "1,2,3,45,6,7,8", "got 7. The body has no line end: .*--data-binary"),
        ((2,), "1,23,45,6", "got 4. The body has no line end"),
        ((3,), "a,b,c1,2,34,5,6", "got 7. The body has no line end"),
        ((2,), "1,2,3\n4,5\n", r"line 1: expected 2 cells for FP32\[-1,2\]; got 3$"),
        ((4,), "1,2,3,4,5", r"got 5$"),
        ((2,), "1,\n", "got ''. Where values may be missing, say `missing: nan` of the input"),
        ((2, -1), "1,2,3\n", r"line 1: expected a multiple of 2 cells for FP32\[-1,2,-1\]; got 3"),
        ((-1,), "1,2\n1,2,3\n", "of equal lengths; got uneven ones. Rows of different"),
        ((2,), "", "expected at least one line of values; got none"),
        ((2,), "\n\r\n", "expected at least one line of values; got none"),
        ((2,), "a,b\n", r"line 1: expected FP32 values; got \['a', 'b'\]"),
        ((2,), '1,"a"2,"b"', "expected CSV .*: .* The body has no line end"),
        ((2,), '"1,2\n', "expected CSV"),
        ((2,), '1,"2"3\n', "expected CSV"),
    ],
)
def test_lines_that_are_no_rows_are_refused_with_what_was_expected(
    shape: tuple[int, ...], body: str, complaint: str
) -> None:
    with pytest.raises((DecodingError, InvalidInput), match=complaint):
        values(body, "FP32", shape)


def test_labels_and_probabilities_come_first() -> None:
    scores = tensor("scores", "FP32", (2,), labels=Labels(("cat", "dog, wet")))
    found = answered(model_spec(outputs=(scores,)), scores=np.array([[0.25, 0.75]], "<f4"))
    assert found == [
        ["label", "probability", "scores[0]", "scores[1]"],
        ["dog, wet", "0.75", "0.25", "0.75"],
    ]


@given(
    st.binary(max_size=60),
    st.sampled_from(["FP32", "INT8", "BOOL", "BYTES"]),
    st.sampled_from([(2,), (-1,), ()]),
)
def test_any_bytes_are_rows_or_refused(body: bytes, dtype: str, shape: tuple[int, ...]) -> None:
    decoded_or_refused(csv_rows.decode, body, one_input(dtype, shape))


@given(damaged(BODIES), st.sampled_from(["FP32", "FP16", "BF16", "INT64", "BOOL", "BYTES"]))
def test_a_damaged_body_is_rows_or_refused(body: bytes, dtype: str) -> None:
    decoded_or_refused(csv_rows.decode, body, one_input(dtype))


@pytest.mark.parametrize(
    ("tensors", "able"),
    [
        ([tensor("x", "FP32", (3, -1))], True),
        ([tensor("x", "FP32", (-1, -1))], False),
        ([tensor("x", "BYTES", ()), tensor("y", "FP32", (1,))], True),
        ([tensor("x", "FP32", ()), tensor("y", "FP32", (2,))], False),
    ],
)
def test_it_carries_one_tensor_or_a_table(tensors: list[Any], able: bool) -> None:
    assert csv_rows.carries(tuple(tensors)) is able


@pytest.mark.parametrize("body", [b"1,,\n5,6\n", b"1.5,O.2\n5,6\n", b",\n5,6\n", b"a,b,c\n5,6\n"])
def test_a_first_line_that_is_a_wrong_row_is_refused_and_not_dropped(body: bytes) -> None:
    with pytest.raises(DecodingError, match="line 1"):
        csv_rows.decode(Content(body, "text/csv"), model_spec((tensor("x", shape=(2,)),)))


def test_the_media_type_decides_whether_there_is_a_header() -> None:
    spec = model_spec((tensor("x", shape=(2,)),))
    present = csv_rows.decode(Content(b"1,2\n3,4\n", "text/csv", {"header": "present"}), spec)
    assert present["x"].tolist() == [[3, 4]]
    with pytest.raises(DecodingError, match="line 1"):
        csv_rows.decode(Content(b"a,b\n3,4\n", "text/csv", {"header": "absent"}), spec)


@pytest.mark.parametrize(
    ("shape", "body", "expected"),
    [
        ((), "text\nyes\nno\n", [b"yes", b"no"]),
        ((1,), '"text"\r\nyes\r\n', [[b"yes"]]),
        ((1,), ' text \n"a,b"\n', [[b"a,b"]]),
        ((2,), "text[0],text[1]\na,b\n", [[b"a", b"b"]]),
        ((1,), "texts\nyes\n", [[b"texts"], [b"yes"]]),
        ((1,), "yes\ntext\n", [[b"yes"], [b"text"]]),
        ((1,), "text\n", [[b"text"]]),
        ((1,), '"text"\n\n', [[b"text"]]),
    ],
    ids=["plain", "quoted", "unusual", "columns", "another", "a later row", "alone", "alone, odd"],
)
def test_a_first_line_of_strings_is_a_header_if_it_is_the_name_of_the_input(
    shape: tuple[int, ...], body: str, expected: list[Any]
) -> None:
    spec = model_spec((tensor("text", "BYTES", shape),))
    assert csv_rows.decode(Content(body.encode(), "text/csv"), spec)["text"].tolist() == expected


def test_a_row_that_is_the_name_of_the_input_is_kept_where_there_is_no_header() -> None:
    spec = model_spec((tensor("text", "BYTES", ()),))
    content = Content(b"text\nyes\n", "text/csv", {"header": "absent"})
    assert csv_rows.decode(content, spec)["text"].tolist() == [b"text", b"yes"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_empty_lines_before_the_first_row_are_passed_over_and_counted(end: str) -> None:
    assert values(3 * end + f'"1",2{end}3,4') == [[1, 2], [3, 4]]
    with pytest.raises(DecodingError, match="line 5, cell 1"):
        values(3 * end + f'"1",2{end}a,4')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_of_empty_lines_alone_no_line_is_made(end: str) -> None:
    with (
        patch(
            "batcher.codecs.formats.csv_rows.csv.reader",
            lambda lines, **_: map(_never, lines),
        ),
        pytest.raises(DecodingError, match="at least one line of values; got none"),
    ):
        values(end * 1000)


def _never(line: str) -> list[str]:
    raise AssertionError(f"the csv module got {line!r}")
