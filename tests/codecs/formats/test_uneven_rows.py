"""Ragged rows in answers: formats that hold them, and the words of those that do not."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest

from batcher.codecs import tf_serving
from batcher.codecs.formats import (
    csv_answers,
    json_lines,
    json_lists,
    msgpack_maps,
    npy,
    octet_stream,
)
from batcher.codecs.oip.request import RequestedOutput
from batcher.codecs.oip.response import output_entry
from batcher.core.ragged import ragged
from batcher.core.spec import Array, Labels, ModelSpec, TensorSpec
from batcher.errors import NotAcceptable
from tests.support.codec_inputs import response
from tests.support.models import model_spec, tensor

NUMBERS: Array = ragged([np.array([1.5, np.nan], "<f4"), np.empty(0, "<f4")])
BITS: Array = ragged([np.array([0x3F80], "<u2"), np.array([0x4000, 0x4040], "<u2")])
TEXTS: Array = ragged([np.array([b"a"], object), np.array([b"b", b'c"'], object)])
BOXES: Array = ragged([np.ones((2, 2), "<i8"), np.zeros((1, 2), "<i8")])


def spec_of(**tensors: Any) -> ModelSpec:
    return model_spec(outputs=tuple(tensor(name, *more) for name, more in tensors.items()))


NUMBER = spec_of(y=("FP32", (-1,)))
CASES = [
    (NUMBERS, NUMBER, [[1.5, None], []]),
    (BITS, spec_of(y=("BF16", (-1,))), [[1], [2, 3]]),
    (TEXTS, spec_of(y=("BYTES", (-1,))), [["a"], ["b", 'c"']]),
    (BOXES, spec_of(y=("INT64", (-1, 2))), [[[1, 1], [1, 1]], [[0, 0]]]),
]
IDS = ["numbers", "BF16", "texts", "boxes"]


@pytest.mark.parametrize(("array", "spec", "expected"), CASES, ids=IDS)
def test_json_has_a_list_for_each_row(array: Array, spec: ModelSpec, expected: Any) -> None:
    answer = response(y=array)
    assert json.loads(json_lists.encode(answer, spec)) == {"outputs": {"y": expected}}
    assert json.loads(tf_serving.encode(answer, spec, by_row=True)) == {"predictions": expected}
    assert json.loads(tf_serving.encode(answer, spec, by_row=False)) == {"outputs": expected}
    lines = bytes(json_lines.encode(answer, spec)).splitlines()
    assert [json.loads(line)["y"] for line in lines] == expected


def test_messagepack_has_an_array_for_each_row() -> None:
    found = msgpack.unpackb(msgpack_maps.encode(response(y=NUMBERS), NUMBER))["outputs"]["y"]
    assert [row[b"shape"] for row in found] == [[2], [0]]
    assert np.frombuffer(found[0][b"data"], "<f4")[0] == 1.5
    texts = msgpack_maps.encode(response(y=TEXTS), CASES[2][1])
    assert msgpack.unpackb(texts)["outputs"]["y"] == [[b"a"], [b"b", b'c"']]


def test_in_csv_short_lines_end_with_empty_cells() -> None:
    spec = spec_of(y=("FP32", (-1,)), t=("BYTES", (-1,)), n=("INT64", ()))
    body = csv_answers.encode(response(y=NUMBERS, t=TEXTS, n=np.array([7, 8])), spec)
    assert bytes(body).decode() == 'y[0],y[1],t[0],t[1],n\n1.5,nan,a,,7\n,,b,"c""",8\n'


def binary(tensor: TensorSpec, array: Array, is_binary: bool) -> object:
    return output_entry(RequestedOutput(tensor, is_binary), response(y=array), [])


@pytest.mark.parametrize(
    "encode",
    [
        lambda array, spec: npy.encode(response(y=array), spec),
        lambda array, spec: octet_stream.encode(response(y=array), spec),
        lambda array, spec: binary(spec.outputs[0], array, True),
        lambda array, spec: binary(spec.outputs[0], array, False),
    ],
    ids=["npy", "raw bytes", "binary tensors", "JSON tensors"],
)
@pytest.mark.parametrize(("array", "spec", "expected"), CASES, ids=IDS)
def test_a_format_of_one_shape_says_so_and_what_to_do(
    encode: Any, array: Array, spec: ModelSpec, expected: Any
) -> None:
    with pytest.raises(NotAcceptable) as raised:
        encode(array, spec)
    assert "output 'y': expected rows of one shape, which this format needs; got [" in str(
        raised.value
    )
    assert "send each row in a request of its own" in str(raised.value)


@pytest.mark.parametrize("logits", [False, True])
def test_each_ragged_row_has_its_own_best_class_or_none(logits: bool) -> None:
    labels = Labels(("no", "yes"), logits)
    spec = model_spec(outputs=(TensorSpec("y", NUMBER.outputs[0].datatype, (-1, 2), None, labels),))
    rows = [np.array([[1, 3], [2, 0]], "<f4"), np.empty((0, 2), "<f4")]
    document = json.loads(json_lists.encode(response(y=ragged(rows)), spec))
    assert [best["label"] for best in document["predictions"]] == ["yes", ""]
    alone = json.loads(json_lists.encode(response(y=rows[1][np.newaxis]), spec))
    assert alone["predictions"] == [{"label": "", "probability": 0.0}]
