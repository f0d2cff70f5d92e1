"""OpenAI's form of embeddings: what a request may hold, and what the answer is."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import numpy as np
import pytest

from batcher.codecs.embeddings import (
    MAX_INPUTS,
    MAX_LOOP_VALUES,
    Embedder,
    decode,
    embedder_of,
    encode,
    has_many_values,
    inputs_for,
)
from batcher.core.request import InferenceResponse
from batcher.core.spec import Labels
from batcher.errors import InvalidInput, TooLarge
from tests.support.models import model_spec, tensor

TEXT = tensor("text", "BYTES", ())
IDS = tensor("ids", "INT32", (-1,), is_optional=True)
VECTOR = tensor("vector", "FP32", (4,))
TOKENS = tensor("tokens", "INT64", ())
SPEC = model_spec(inputs=(TEXT, IDS), outputs=(VECTOR, TOKENS))
LONG = 1 << 18
"""Bytes from which a body is read piece by piece."""


def embedder(spec: Any = SPEC) -> Embedder:
    found = embedder_of(spec)
    assert found is not None
    return found


def body(given: Any, **more: Any) -> bytes:
    return json.dumps({"model": "m", "input": given, **more}).encode()


def answered(wish: bytes, **outputs: Any) -> Any:
    vectors = np.array([[3, 4, 0, 12], [1, 0, 0, 0]], np.float32)
    arrays = {"vector": vectors, "tokens": np.array([5, 2]), **outputs}
    response = InferenceResponse("m", "1", arrays, 0.0, 0.0, 2)
    return json.loads(encode(response, decode(wish), embedder()))


@pytest.mark.parametrize("given", ["ä text", ["ä text"]])
def test_a_text_is_one_row(given: Any) -> None:
    wish = decode(body(given, user="somebody", more=[1]))
    assert (wish.model, wish.ids, wish.base64, wish.dimensions) == ("m", None, False, 0)
    inputs = inputs_for(wish, embedder())
    assert list(inputs) == ["text"]
    assert inputs["text"].tolist() == ["ä text".encode()]


def test_texts_keep_their_order_in_a_body_of_any_size() -> None:
    texts = [f"{index} {'x' * 400}" for index in range(MAX_INPUTS)]
    given = body(texts)
    assert len(given) > LONG
    assert decode(given).texts.tolist() == [text.encode() for text in texts]


def test_ids_stand_behind_each_other_with_a_mark_behind_shorter_lists() -> None:
    assert inputs_for(decode(body([1, 2, 3])), embedder())["ids"].tolist() == [[1, 2, 3]]
    inputs = inputs_for(decode(body([[1, 2, 3], [4]])), embedder())
    assert inputs["ids"].tolist() == [[1, 2, 3], [4, -1, -1]]
    assert inputs["ids"].dtype == np.int32
    assert inputs["text"].tolist() == [b"", b""]


@pytest.mark.parametrize(("value", "each"), [(1, 1), ([1], 2), ([], 2), ({}, 2), ("a", 1)], ids=str)
def test_many_values_are_told_by_commas_and_brackets(value: Any, each: int) -> None:
    # The object and the list around the values count, and so does the comma before that list.
    most = (MAX_LOOP_VALUES - 2) // each
    assert not has_many_values(body([value] * most))
    assert has_many_values(body([value] * (most + 1)))


def test_a_long_text_is_not_many_values() -> None:
    assert not has_many_values(body("a text of words, and of some more " * 7000))


def test_ids_of_a_large_body_are_read_piece_by_piece() -> None:
    single = list(range(100_000))
    given = body(single)
    assert len(given) > LONG
    assert inputs_for(decode(given), embedder())["ids"].tolist() == [single]
    ids = inputs_for(decode(body([single[:60_000], [7], single[:9]])), embedder())["ids"]
    assert [(row >= 0).sum() for row in ids] == [60_000, 1, 9]
    assert ids[0].tolist() == single[:60_000]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "input: expected texts that are not empty; got an empty one"),
        ([], "input: .*; got an empty list"),
        (["a", ""], "input: expected texts that are not empty; got an empty one"),
        ([[]], "input: expected lists of token ids, none empty; got an empty list"),
        ([[1], []], "input: expected lists of token ids, none empty; got an empty list"),
        (None, "input: expected a text, a list of texts, .*; got None"),
        ({"text": "a"}, "input: expected .*; got {'text': 'a'}"),
        (["a", 1], "input: expected .*; got a list of int, str"),
        (["a", ["b"]], "input: expected .*; got a list of list, str"),
        ([["a"]], "input: expected token ids, which are whole numbers; got str"),
        ([[1, [2]]], "input: expected token ids, which are whole numbers; got list"),
        ([True], "input: expected .*; got a list of bool"),
        ([[1, True]], "input: expected token ids, which are whole numbers; got bool"),
        ([1.5], "input: expected .*; got a list of float"),
        ([1, -2], "input: expected token ids of 0 and above; got -2"),
        ([1 << 63], "input: expected token ids; got a number of more than 63 bits"),
        (["a"] * (MAX_INPUTS + 1), "input: expected at most 2048 texts in a request"),
        ([[1]] * (MAX_INPUTS + 1), "input: expected at most 2048 texts in a request"),
        (["x" * 2000] * 200 + [1], "input: expected .*; got a list of int, str|several of these"),
        ([["x" * 2000] * 200], "input: expected token ids, which are whole numbers; got str"),
    ],
    ids=range(20),
)
def test_inputs_that_are_none_of_the_four_kinds_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^(body: )?{message}"):
        decode(body(given))


def test_lists_that_are_long_when_padded_are_refused_before_they_are() -> None:
    with pytest.raises(TooLarge, match="input: expected at most 2097152 token ids"):
        decode(body([[1] * 5000, *[[1]] * 2000]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": 7}, "model: expected the name of a model; got 7"),
        ({"model": ""}, "model: expected the name of a model; got ''"),
        ({"encoding_format": "hex"}, "encoding_format: expected 'float' or 'base64'; got 'hex'"),
        ({"encoding_format": ""}, "encoding_format: expected 'float' or 'base64'; got ''"),
        ({"encoding_format": 0}, "encoding_format: expected 'float' or 'base64'; got 0"),
        ({"encoding_format": ["float"]}, r"encoding_format: .*; got \['float'\]"),
        ({"dimensions": 0}, "dimensions: expected a whole number of at least 1; got 0"),
        ({"dimensions": 1.5}, "dimensions: expected a whole number of at least 1; got 1.5"),
        ({"dimensions": True}, "dimensions: expected a whole number of at least 1; got True"),
    ],
)
def test_other_members_are_checked(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode(body("a", **more))


def test_a_member_that_is_missing_is_named() -> None:
    for given, message in (
        (b"[]", "body: expected an object with `model` and `input`; got list"),
        (b'{"input": "a"}', "model: expected the name of a model; got none"),
        (b'{"model": "m"}', "input: expected .*; got none"),
    ):
        with pytest.raises(InvalidInput, match=message):
            decode(given)


def test_an_answer_has_a_vector_for_each_text_and_the_number_of_tokens() -> None:
    assert answered(body(["a", "b"], encoding_format=None, dimensions=None)) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [3, 4, 0, 12]},
            {"object": "embedding", "index": 1, "embedding": [1, 0, 0, 0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_in_base64_a_vector_is_its_bytes() -> None:
    data = answered(body(["a", "b"], encoding_format="base64"))["data"]
    assert np.frombuffer(b64decode(data[0]["embedding"]), "<f4").tolist() == [3, 4, 0, 12]


def test_what_is_kept_of_a_vector_has_length_one() -> None:
    data = answered(body(["a", "b"], dimensions=2))["data"]
    assert data[0]["embedding"] == pytest.approx([0.6, 0.8])
    assert answered(body(["a", "b"], dimensions=4))["data"][0]["embedding"] == [3, 4, 0, 12]
    nothing = np.zeros((2, 4), np.float32)
    assert answered(body(["a", "b"], dimensions=1), vector=nothing)["data"][0]["embedding"] == [0]


def test_more_numbers_than_a_vector_has_are_refused() -> None:
    wish = decode(body("a", dimensions=5))
    with pytest.raises(InvalidInput, match="dimensions: expected at most 4; got 5"):
        inputs_for(wish, embedder())
    free = embedder(model_spec(inputs=(TEXT,), outputs=(tensor("v", "FP32", (-1,)),)))
    assert list(inputs_for(wish, free)) == ["text"]
    vectors = {"v": np.ones((1, 4), np.float32)}
    with pytest.raises(InvalidInput, match="dimensions: expected at most 4; got 5"):
        encode(InferenceResponse("m", "1", vectors, 0.0, 0.0, 1), wish, free)


def test_tokens_are_counted_by_the_ids_where_the_model_does_not_say() -> None:
    silent = embedder(model_spec(inputs=(TEXT, IDS), outputs=(VECTOR,)))
    response = InferenceResponse("m", "1", {"vector": np.ones((2, 4), "<f4")}, 0.0, 0.0, 2)
    for given, tokens in (([[1, 2, 3], [4]], 4), (["a", "b"], 0)):
        wish = decode(body(given)).without_inputs()
        assert (wish.texts.tolist(), wish.ids) == ([], None)
        found = json.loads(encode(response, wish, silent))
        assert found["usage"]["prompt_tokens"] == tokens


def test_ids_go_to_models_that_have_a_place_for_them() -> None:
    without = embedder(model_spec(inputs=(TEXT,), outputs=(VECTOR,)))
    with pytest.raises(InvalidInput, match="the model takes no token ids"):
        inputs_for(decode(body([1])), without)
    with pytest.raises(InvalidInput, match="input: expected token ids of int32; got 4294967296"):
        inputs_for(decode(body([1 << 32])), embedder())


def test_numbers_of_every_width_are_sent() -> None:
    for dtype, array in (("BF16", np.array([[0x3F80]], "<u2")), ("FP64", np.ones((1, 1)))):
        wide = embedder(model_spec(inputs=(TEXT,), outputs=(tensor("v", dtype, (1,)),)))
        response = InferenceResponse("m", "1", {"v": array}, 0.0, 0.0, 1)
        found = json.loads(encode(response, decode(body("a")), wide))
        assert found["data"][0]["embedding"] == [1]


LABELLED = tensor("v", "FP32", (2,), labels=Labels(("a", "b")))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((tensor("x", "FP32", (4,)),), (VECTOR,)),
        ((TEXT, tensor("more", "BYTES", ())), (VECTOR,)),
        ((tensor("text", "BYTES", (2,)),), (VECTOR,)),
        ((TEXT,), (LABELLED,)),
        ((TEXT,), (VECTOR, tensor("other", "FP16", (4,)))),
        ((TEXT,), (tensor("v", "FP32", ()),)),
        ((TEXT,), (tensor("v", "INT64", (4,)),)),
        ((TEXT,), (tensor("v", "FP32", (-1,), unpads=True),)),
    ],
    ids=["no text", "two texts", "pairs", "scores", "two vectors", "a number", "integers", "cut"],
)
def test_other_models_make_no_embeddings(inputs: Any, outputs: Any) -> None:
    assert embedder_of(model_spec(inputs=inputs, outputs=outputs)) is None


def test_a_text_may_be_a_row_of_one_element() -> None:
    one = embedder(model_spec(inputs=(tensor("text", "BYTES", (1,)),), outputs=(VECTOR,)))
    assert inputs_for(decode(body(["a", "b"])), one)["text"].tolist() == [[b"a"], [b"b"]]
