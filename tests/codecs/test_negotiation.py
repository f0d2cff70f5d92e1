"""Choosing a format by `Content-Type` and by `Accept`."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.format_table import (
    ANY_FILE,
    CSV,
    FORMATS,
    JSON,
    LARGE_MSGPACK_BYTES,
    MSGPACK,
    MULTIPART,
    NPY,
    OCTET_STREAM,
    PICTURES,
    TEXT,
    Format,
    decode_body,
)
from batcher.codecs.negotiation import answer_format, media_type, request_format, wants_msgpack
from batcher.core.spec import ModelSpec
from batcher.errors import DecodingError, NotAcceptable, UnsupportedMediaType
from tests.support.codec_inputs import one_input, picture_spec
from tests.support.models import model_spec, tensor

SPEC = one_input()
TWO_OUTPUTS = model_spec(outputs=(tensor("y"), tensor("z")))
PICTURE = picture_spec((3, 4, 6))
ONE_TEXT = one_input("BYTES", (1,))
HEADERS = st.text(st.characters(codec="latin-1"), max_size=60) | st.lists(
    st.sampled_from(
        [
            "application",
            "/",
            "json",
            "*",
            ";",
            ",",
            "q",
            "=",
            "0.5",
            "nan",
            "1e9",
            '"',
            "'",
            "*0*",
            " ",
            "%",
            "text/csv",
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("header", "name", "parameters"),
    [
        ("application/json", "application/json", {}),
        ("Application/JSON; Charset=UTF-8", "application/json", {"charset": "UTF-8"}),
        (
            "text/csv;charset=utf-8;header=present",
            "text/csv",
            {"charset": "utf-8", "header": "present"},
        ),
        ('multipart/form-data; boundary="a;b, c"', "multipart/form-data", {"boundary": "a;b, c"}),
        (" image/png ", "image/png", {}),
        ("", "", {}),
    ],
)
def test_a_media_type_is_its_name_in_lower_case_and_its_parameters(
    header: str, name: str, parameters: dict[str, str]
) -> None:
    found, found_parameters = media_type(header)
    assert found == name
    assert dict(found_parameters) == parameters


@given(HEADERS)
def test_every_parameter_of_any_media_type_is_text(header: str) -> None:
    name, parameters = media_type(header)
    assert isinstance(name, str)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in parameters.items())


def test_a_parameter_in_the_extended_notation_of_rfc_2231_is_text() -> None:
    assert isinstance(
        media_type("application/json; charset*=us-ascii'en'utf-8")[1].get("charset", ""), str
    )


def spec_for(entry: Format) -> ModelSpec:
    """Return a model whose input bodies of the format can carry."""
    if entry in (TEXT, ANY_FILE):
        return ONE_TEXT
    return PICTURE if entry in (*PICTURES, MULTIPART) else SPEC


@pytest.mark.parametrize(
    "header",
    ["application/pdf", "image/png", "audio/wav; codecs=1", "application/octet-stream", "text/x-y"],
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (-1,)])
def test_a_model_of_one_element_of_bytes_takes_every_other_type_as_a_file(
    header: str, shape: tuple[int, ...]
) -> None:
    assert request_format(header, one_input("BYTES", shape)) is ANY_FILE


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: entry.media_type)
def test_every_format_is_found_by_its_name_and_its_aliases(entry: Format) -> None:
    spec = spec_for(entry)
    for name in (
        entry.media_type,
        *entry.aliases,
        entry.media_type.upper(),
        f"{entry.media_type}; a=b",
    ):
        assert request_format(name, spec) is entry


@pytest.mark.parametrize(
    ("header", "spec", "complaint"),
    [
        (
            "",
            SPEC,
            "Content-Type: expected one of application/json, application/msgpack, .*text/csv, "
            "application/jsonlines; got none$",
        ),
        ("text/html", SPEC, "got 'text/html'$"),
        ("text/plain", SPEC, r"got 'text/plain', which cannot carry x FP32\[-1,2\]"),
        ("", ONE_TEXT, "text/plain, any other type, taken as a file; got none$"),
        ("application/x-www-form-urlencoded", ONE_TEXT, "which `curl -d` sends unless `-H"),
        ("application/pdf", one_input("BYTES", (2,)), "got 'application/pdf'$"),
        ("application/jsonx", SPEC, "got 'application/jsonx'"),
        ("image/png", SPEC, r"got 'image/png', which cannot carry x FP32\[-1,2\]"),
        (
            "image/png",
            one_input("UINT8", (-1, -1, 3)),
            r"cannot carry x UINT8\[-1,-1,-1,3\]: an input takes pictures if `image:` says so",
        ),
        (
            "image/gif",
            PICTURE,
            "image/png, image/jpeg, image/webp, image/bmp, multipart/form-data; got 'image/gif'$",
        ),
        ("multipart/form-data; boundary=x", SPEC, "which cannot carry"),
        (
            "application/octet-stream",
            one_input("FP32", (-1, -1)),
            r"expected one of .*; got .* which cannot carry x FP32\[-1,-1,-1\]",
        ),
        (
            "application/octet-stream",
            model_spec(inputs=(tensor("a"), tensor("b"))),
            r"cannot carry a FP32\[-1,4\], b FP32\[-1,4\]",
        ),
    ],
)
def test_another_media_type_is_refused_with_those_that_the_model_reads(
    header: str, spec: ModelSpec, complaint: str
) -> None:
    with pytest.raises(UnsupportedMediaType, match=complaint):
        request_format(header, spec)


@pytest.mark.parametrize("accept", ["", "*/*", "*/*;q=0.1", "application/*, */*;q=0.5"])
@pytest.mark.parametrize("came_as", [JSON, MSGPACK, OCTET_STREAM, NPY])
def test_the_answer_is_in_the_format_of_the_body_if_the_client_does_not_mind(
    accept: str, came_as: Format
) -> None:
    assert answer_format(accept, came_as, SPEC) is came_as


@pytest.mark.parametrize("came_as", [*PICTURES, MULTIPART, OCTET_STREAM, NPY])
def test_the_answer_is_json_if_the_format_of_the_body_cannot_hold_it(came_as: Format) -> None:
    assert answer_format("", came_as, TWO_OUTPUTS) is JSON
    assert answer_format("*/*", came_as, TWO_OUTPUTS) is JSON


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json", JSON),
        ("Application/MsgPack", MSGPACK),
        ("application/x-msgpack", MSGPACK),
        ("application/vnd.msgpack", MSGPACK),
        ("text/*", CSV),
        ("text/json", JSON),
        ("application/json;q=0.1, text/csv;q=0.5", CSV),
        ("text/csv;q=0.5, application/json", JSON),
        ("application/json; q=0, */*", NPY),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", NPY),
        ("image/png, application/octet-stream", OCTET_STREAM),
        ("application/json;charset=utf-8", JSON),
        ("*/*, text/csv", NPY),
        ("*/*;q=0.1, text/csv", CSV),
        ("text/json;q=0.1, application/json, text/csv;q=0.5", JSON),
        ("application/x-msgpack;q=0, application/msgpack, text/csv;q=0.5", MSGPACK),
        ("application/json;q=1.5, text/csv;q=-1", JSON),
        ("application/json;q=wrong, text/csv;q=0.1", CSV),
        ("application/json;q=nan, text/csv;q=0.1", CSV),
        ("application/json;q=, text/csv;q=0.1", CSV),
        ('text/csv;a="x, y";q=0.1, application/json;q=0.2', JSON),
    ],
)
def test_the_most_wanted_format_wins(accept: str, expected: Format) -> None:
    assert answer_format(accept, NPY, SPEC) is expected


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "text/html",
        "application/json;q=0",
        "*/*;q=0",
        "application/json;q=nan",
        ",",
        "json",
    ],
)
def test_an_answer_that_the_client_would_not_take_is_refused_with_those_there_are(
    accept: str,
) -> None:
    with pytest.raises(
        NotAcceptable,
        match=r"Accept: expected one of application/json, application/msgpack, .*; got ",
    ):
        answer_format(accept, JSON, SPEC)


def test_a_binary_format_that_cannot_hold_two_outputs_is_not_offered() -> None:
    with pytest.raises(
        NotAcceptable,
        match="expected one of application/json, application/msgpack, application/jsonlines; got",
    ):
        answer_format("application/octet-stream", JSON, TWO_OUTPUTS)


@given(HEADERS)
def test_any_accept_header_is_answered_or_refused(accept: str) -> None:
    try:
        found = answer_format(accept, JSON, SPEC)
    except NotAcceptable:
        return
    assert found.encode is not None


@given(HEADERS)
def test_any_content_type_is_a_format_or_refused(header: str) -> None:
    try:
        found = request_format(header, SPEC)
    except UnsupportedMediaType:
        return
    assert found in FORMATS


@given(HEADERS, HEADERS)
def test_any_headers_say_whether_an_error_is_msgpack(accept: str, content_type: str) -> None:
    assert wants_msgpack(accept, content_type) in (True, False)


@pytest.mark.parametrize(
    "accept",
    ["application/json; q*=us-ascii'en'1", "application/json; q*=1", "application/json;q*0=1"],
)
def test_a_quality_in_the_extended_notation_of_rfc_2231_breaks_nothing(accept: str) -> None:
    wants_msgpack(accept, "")
    try:
        assert answer_format(accept, JSON, SPEC) is JSON
    except NotAcceptable:
        return


@pytest.mark.parametrize(
    ("accept", "content_type", "expected"),
    [
        ("", "application/msgpack", True),
        ("*/*", "application/x-msgpack", True),
        ("", "application/json", False),
        ("", "", False),
        ("application/msgpack", "application/json", True),
        ("application/json", "application/msgpack", False),
        ("application/json;q=0.5, application/msgpack", "", True),
        ("text/csv", "application/msgpack", False),
    ],
)
def test_an_error_is_msgpack_if_it_was_asked_for_or_sent(
    accept: str, content_type: str, expected: bool
) -> None:
    assert wants_msgpack(accept, content_type) is expected


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: entry.media_type)
def test_an_empty_body_is_refused_in_every_format(entry: Format) -> None:
    with pytest.raises(
        DecodingError, match=f"body: expected {re.escape(entry.media_type)}; got an empty body"
    ):
        decode_body(
            entry,
            Content(b"", entry.media_type),
            spec_for(entry),
        )


def test_heavy_formats_alone_run_on_the_pool() -> None:
    assert {entry.media_type for entry in FORMATS if entry.pooled} == {
        *(entry.media_type for entry in PICTURES),
        MULTIPART.media_type,
        ANY_FILE.media_type,
    }


@pytest.mark.parametrize("nbytes", [LARGE_MSGPACK_BYTES - 1, LARGE_MSGPACK_BYTES])
def test_messagepack_of_arrays_is_heavy_once_its_copy_takes_the_loop_too_long(nbytes: int) -> None:
    body = b"\xc6" + (nbytes - 5).to_bytes(4, "big") + bytes(nbytes - 5)
    assert len(body) == nbytes
    assert MSGPACK.is_text is not None
    assert MSGPACK.is_text(body) == (nbytes >= LARGE_MSGPACK_BYTES)
