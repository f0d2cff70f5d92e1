"""`application/jsonlines`: one row on each line, both ways."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from batcher.codecs.content import Content
from batcher.codecs.formats.json_lines import decode, encode
from batcher.codecs.formats.json_text import LARGE_BYTES
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, Labels, ModelSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge
from tests.support.codec_inputs import (
    MIB,
    echo_spec,
    encoded,
    one_input,
    picture_spec,
    pixels,
    process_memory_below,
    response,
)
from tests.support.models import model_spec, tensor

SPEC = one_input()
TWO = echo_spec(tensor("a", "INT32", ()), tensor("b", "BYTES", ()))


def inputs_of(body: bytes, spec: ModelSpec = SPEC, **more: DecodingLimits) -> dict[str, Array]:
    """Return the inputs in `body`."""
    return decode(Content(body, "application/jsonlines", **more), spec)


@pytest.mark.parametrize(
    "body",
    [
        b"[1,2]\n[3,4]\n",
        b"[1,2]\n[3,4]",
        b"[1, 2]\r\n[3, 4]\r\n",
        b'{"x": [1, 2]}\n{"x": [3, 4]}\n',
        b"\n\n[1,2]\n\n\n\n\n[3,4]\n\n",
        b"\xef\xbb\xbf[1,2]\n[3,4]\n",
    ],
    ids=range(6),
)
def test_each_line_is_a_row(body: bytes) -> None:
    assert inputs_of(body)["x"].tolist() == [[1, 2], [3, 4]]


def test_a_line_has_a_value_of_each_input() -> None:
    body = b'{"a":1,"b":"one"}\n{"b":{"b64":"//8="},"a":2}\n'
    inputs = inputs_of(body, TWO)
    assert inputs["a"].tolist() == [1, 2]
    assert inputs["b"].tolist() == [b"one", b"\xff\xff"]


def test_a_line_may_be_a_picture() -> None:
    spec = picture_spec((1, 2, 2), "L", dtype="UINT8", scale=1.0)
    picture = pixels(2, 2, 1)
    text = base64.b64encode(encoded(picture)).decode()
    body = f'{{"b64":"{text}"}}\n{{"x":{{"b64":"{text}"}}}}\n'.encode()
    assert inputs_of(body, spec)["x"].tolist() == [[picture.tolist()]] * 2


def test_a_large_body_is_read_to_the_same_rows() -> None:
    values = np.arange(80_000, dtype="<f4").reshape(-1, 2)
    body = b"".join(b"[%d,%d]\n" % (a, b) for a, b in values.astype(int).tolist())
    assert len(body) > LARGE_BYTES
    assert np.array_equal(inputs_of(body)["x"], values)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[1,2]\n[3,\n4]\n", "line 2: body: expected JSON"),
        (b"[1,2]\n[3,4],[5,6]\n", "line 2: body: expected JSON"),
        (b"[1,2]\nno\n", "line 2: body: expected JSON"),
        (b"[1,2]]}\n", "line 1: body: expected JSON"),
        (b'[1,2]],"instances":[[3,4]\n', "line 1: body: expected JSON"),
        (b"[1,2]\n   \n[3,4]", "line 2: body: expected JSON"),
        (b"\n\n", "at least one line"),
    ],
    ids=range(7),
)
def test_a_line_that_is_no_json_is_named(body: bytes, text: str) -> None:
    with pytest.raises(DecodingError, match=text):
        inputs_of(body)


@pytest.mark.parametrize(
    "body",
    [b'[1,2]\n["a",4]', b'{"y":[1,2]}', b"[1,2]\n[3]", b"{}", b'{"x":[1,2],"y":3}'],
    ids=range(5),
)
def test_a_line_that_is_no_row_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        inputs_of(body)


def test_more_lines_than_the_queue_could_hold_are_refused_before_they_are_read() -> None:
    with pytest.raises(TooLarge, match="at most 2 rows"):
        inputs_of(b"no json\n" * 3, limits=DecodingLimits(2, 1 << 30))


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64", "BF16", "INT8", "UINT64", "BOOL"])
def test_an_answer_has_an_object_on_each_line(dtype: str) -> None:
    values = np.array([[0, 1], [1, 1], [1, 0]])
    kind = tensor("y", dtype, (2,))
    stored = (
        values.astype("<u2") * 0x3F80 if dtype == "BF16" else values.astype(kind.datatype.numpy)
    )
    lines = bytes(encode(response(y=stored), model_spec(outputs=(kind,)))).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [{"y": row} for row in values.tolist()]


def test_an_answer_of_many_lines_takes_little_more_memory_than_its_text() -> None:
    values = np.zeros((200_000, 1), "<f4")
    answer = response(y=values)
    spec = model_spec(outputs=(tensor("y", "FP32", (1,)),))
    encode(answer, spec)  # what the first call allocates for good is not counted
    with process_memory_below(24 * MIB):
        assert len(encode(answer, spec)) == 200_000 * len('{"y":[0.0]}\n')


def test_an_answer_has_every_output_and_the_best_label() -> None:
    labels = Labels(("cat", "dog"), False)
    outputs = (tensor("scores", "FP32", (2,), labels=labels), tensor("note", "BYTES", ()))
    scores, notes = np.array([[0.25, 0.75]], "<f4"), np.array([b"n\xff"], object)
    (line,) = bytes(
        encode(response(scores=scores, note=notes), model_spec(outputs=outputs))
    ).splitlines()
    assert json.loads(line) == {
        "scores": [0.25, 0.75],
        "note": "n\N{REPLACEMENT CHARACTER}",
        "prediction": {"label": "dog", "probability": 0.75},
    }


def test_one_value_a_row_stands_without_a_list() -> None:
    line = encode(
        response(y=np.array([1.5, 2.5], "<f4")), model_spec(outputs=(tensor("y", shape=()),))
    )
    assert bytes(line) == b'{"y":1.5}\n{"y":2.5}\n'
