"""Header values whose naive reading would take far more time than their length."""

from __future__ import annotations

import pytest

from batcher.codecs.content import Content
from batcher.codecs.formats import json_lists
from batcher.codecs.negotiation import media_type, wants_msgpack
from batcher.errors import DecodingError
from tests.support.models import model_spec


@pytest.mark.parametrize("charset", ["punycode", "idna", "rot13", "hex", "undefined"])
def test_a_charset_that_is_no_usual_encoding_of_text_is_refused_by_name(charset: str) -> None:
    with pytest.raises(DecodingError, match=charset):
        json_lists.decode(Content(b"{}", "application/json", {"charset": charset}), model_spec())


def test_quotes_that_never_close_are_read_to_their_end() -> None:
    assert wants_msgpack('"\\' * 15_000, "application/json") is False
    assert media_type("text/csv; a=" + '"\\' * 15_000)[0] == "text/csv"


def test_an_alias_asks_for_messagepack_as_its_name_does() -> None:
    assert wants_msgpack("application/x-msgpack", "")
    assert wants_msgpack("", "application/x-msgpack")
