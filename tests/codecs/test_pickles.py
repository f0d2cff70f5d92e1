"""Codecs may run in another process: their functions and arguments survive pickling."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest

from batcher.codecs import tf_serving
from batcher.codecs.content import Content
from batcher.codecs.format_table import FORMATS, JSON, decode_body
from batcher.codecs.oip.request import read_head
from batcher.codecs.oip.response import encode
from batcher.core.decoding_limits import DecodingLimits
from batcher.errors import TooLarge
from tests.support.codec_inputs import one_input, response, same

OIP = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'


def there_and_back(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: entry.media_type)
def test_a_format_is_the_same_row_of_the_table_in_every_process(entry: Any) -> None:
    assert there_and_back(entry) is entry


def test_a_call_that_decodes_a_native_body_can_be_sent() -> None:
    limits = DecodingLimits(4, 1000)
    content = Content(b'{"inputs":{"x":[[1,2]]}}', "application/json", {"a": "b"}, 99, limits)
    call = there_and_back(partial(decode_body, JSON, content, one_input()))
    assert call.args[1] == content
    same(call()["x"], np.array([[1, 2]], "<f4"))


def test_calls_that_decode_the_other_protocols_can_be_sent_and_their_results_come_back() -> None:
    head = there_and_back(there_and_back(partial(read_head, OIP, one_input()))())
    same(head.inputs(b"")["x"], np.array([[1, 2]], "<f4"))
    call = partial(tf_serving.decode, b'{"instances":[[1,2]]}', one_input())
    inputs, by_row = there_and_back(there_and_back(call)())
    assert by_row
    same(inputs["x"], np.array([[1, 2]], "<f4"))


def test_calls_that_encode_an_answer_can_be_sent() -> None:
    answer, spec = response(x=np.array([[1, 2]], "<f4")), one_input()
    for entry in FORMATS:
        if entry.encode is not None:
            call = there_and_back(partial(entry.encode, answer, spec))
            assert bytes(call()) == bytes(entry.encode(answer, spec))
    head = read_head(OIP, spec)
    assert there_and_back(partial(encode, answer, head))() == encode(answer, head)


def test_a_refusal_comes_back_as_it_is() -> None:
    with pytest.raises(TooLarge) as refusal:
        DecodingLimits(4, 1000).check(5, 10, "x")
    assert str(there_and_back(refusal.value)) == str(refusal.value)
    assert "at most 4 rows" in str(refusal.value)
