"""Header values whose naive reading would take far more time than their length."""

from __future__ import annotations

import pytest

from batcher.codecs.content import Content
from batcher.codecs.format_table import JSON, MSGPACK
from batcher.codecs.formats import json_lists
from batcher.codecs.negotiation import (
    accepts_json,
    answer_format,
    media_type,
    request_format,
    wants_msgpack,
)
from batcher.codecs.q_values import q_value
from batcher.codecs.response_coding import response_coding
from batcher.errors import DecodingError, HeadersTooLarge
from tests.support.models import model_spec


@pytest.mark.parametrize("charset", ["punycode", "idna", "rot13", "hex", "undefined"])
def test_a_charset_that_is_no_usual_encoding_of_text_is_refused_by_name(charset: str) -> None:
    with pytest.raises(DecodingError, match=charset):
        json_lists.decode(Content(b"{}", "application/json", {"charset": charset}), model_spec())


def test_quotes_that_never_close_are_read_to_their_end() -> None:
    assert wants_msgpack('"\\' * 500, "application/json") is False
    assert media_type("text/csv; a=" + '"\\' * 500)[0] == "text/csv"


def test_commas_within_quotes_end_no_item() -> None:
    assert wants_msgpack('a;b="x,y", application/msgpack, a;c="\\",application/json', "")
    assert not wants_msgpack('a;b=",application/msgpack', "")


def test_a_content_type_that_is_too_long_is_refused_and_not_kept() -> None:
    with pytest.raises(HeadersTooLarge, match=r"Content-Type: .* 1024 .*; got 30000"):
        request_format("a" * 30_000, model_spec())
    with pytest.raises(HeadersTooLarge, match="Content-Type"):
        media_type(";a=1" * 8_000)


@pytest.mark.parametrize(
    ("accept", "limit"),
    [("a," * 15_000, "at most 1024 characters"), ("a," * 65, "at most 64 items; got 65")],
    ids=["long", "many"],
)
def test_an_accept_beyond_a_limit_is_refused_by_the_limit(accept: str, limit: str) -> None:
    with pytest.raises(HeadersTooLarge, match=f"Accept: expected {limit}"):
        answer_format(accept, JSON, model_spec())
    with pytest.raises(HeadersTooLarge, match="Accept"):
        accepts_json(accept)
    assert wants_msgpack(accept, "application/msgpack") is False


def test_an_accept_of_many_items_is_read() -> None:
    accept = "a/b, " * 62 + "application/msgpack"
    assert answer_format(accept, JSON, model_spec()) is MSGPACK


def test_an_accept_encoding_that_is_too_long_asks_for_no_coding() -> None:
    assert response_coding("gzip," + "a," * 500) == "gzip"
    assert response_coding("gzip," + "a," * 600) == ""


@pytest.mark.parametrize("text", ["1" * 30_000, "0." + "0" * 30_000 + "1", "1e" + "9" * 30_000])
def test_a_weight_that_is_too_long_is_none(text: str) -> None:
    assert q_value(text) == 0


def test_an_alias_asks_for_messagepack_as_its_name_does() -> None:
    assert wants_msgpack("application/x-msgpack", "")
    assert wants_msgpack("", "application/x-msgpack")
