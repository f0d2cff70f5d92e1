"""HTTP/1.1 of the client: what bytes of a server, cut anywhere, are as responses."""

from __future__ import annotations

import gc
import gzip
import zlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batcher.client import AnswerLost, MalformedAnswer
from batcher.client.attempts import checked_options
from batcher.client.http_exchange import ResponseReader, request_bytes
from batcher.client.request_building import HttpRequest, MetadataOperation, infer_operation
from batcher.client.response_reading import HttpResponse, unpacked

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nRetry-After: 1\r\nretry-after: 2\r\n\r\nbody"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=1\r\ndy\r\n0\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nbody"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def read(data: bytes, cuts: int = 0) -> tuple[HttpResponse | None, bool]:
    """Return the response of `data`, which comes in `cuts` and one pieces; then the end."""
    reader = ResponseReader()
    reader.expect()
    size = -(-len(data) // (cuts + 1)) or 1
    response = None
    for start in range(0, len(data), size):
        response = reader.feed(data[start : start + size])
    is_reusable = reader.is_reusable
    return response or reader.end(), is_reusable


@given(
    st.sampled_from([OK, CHUNKED, TO_THE_END, CONTINUE + OK, HINTS + CHUNKED]), st.integers(0, 90)
)
def test_a_response_is_the_same_however_it_is_cut(data: bytes, cuts: int) -> None:
    response, is_reusable = read(data, cuts)
    assert response is not None
    assert (response.status, response.body) == (200, b"body")
    assert is_reusable is (data is not TO_THE_END)


def test_the_last_of_several_fields_counts_whatever_its_case() -> None:
    response, _ = read(OK)
    assert response is not None
    assert response.headers == {"content-length": "4", "retry-after": "2"}


@pytest.mark.parametrize(
    "data",
    [
        OK.replace(b"Content", b"Connection: close\r\nContent"),
        OK.replace(b"1.1", b"1.0"),
        OK + b"more",
        OK + OK,
        OK + b"HTTP/1.1 408 Request Timeout\r\n",
    ],
)
def test_a_connection_of_which_more_comes_or_that_ends_is_not_used_again(data: bytes) -> None:
    response, is_reusable = read(data)
    assert response is not None
    assert response.body == b"body"
    assert not is_reusable


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_ends_with_its_head(status: int) -> None:
    response, is_reusable = read(b"HTTP/1.1 %d Reason\r\n\r\n" % status)
    assert (response, is_reusable) == (HttpResponse(status, {}, b""), True)


@pytest.mark.parametrize("data", [b"", OK[:-1], CHUNKED[:-2], CONTINUE, b"HTTP/1.1 200 OK\r\n"])
def test_a_response_that_is_cut_off_is_none(data: bytes) -> None:
    assert read(data) == (None, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
    ],
)
def test_other_protocols_are_an_answer_that_is_lost(data: bytes) -> None:
    with pytest.raises(AnswerLost, match=r"expected an answer in HTTP/1.1; got other bytes"):
        read(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    reader = ResponseReader()
    reader.expect()
    try:
        reader.feed(b"HTTP/1.1 200 OK\r\n" + data)
        reader.end()
    except AnswerLost:
        assert not reader.is_reusable


def test_one_reader_reads_one_response_after_the_other() -> None:
    reader = ResponseReader()
    for body in (b"a", b"bc"):
        reader.expect()
        response = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert response is not None
        assert response.body == body
        assert reader.is_reusable


def test_a_response_that_was_given_is_not_held() -> None:
    reader = ResponseReader()
    for data in (OK, CHUNKED):
        reader.expect()
        response = reader.feed(data)
        assert response is not None
        held = gc.get_referents(reader)
        assert reader.is_reusable
        assert response not in held
        assert [b"body"] not in held


def test_a_body_that_a_proxy_has_packed_unasked_is_unpacked() -> None:
    for coding, packed in (("gzip", gzip.compress(b"body")), ("deflate", zlib.compress(b"body"))):
        response = HttpResponse(200, {"content-encoding": coding}, packed)
        assert unpacked(response).body == b"body"
        with pytest.raises(MalformedAnswer, match=f"expected a body of coding {coding}"):
            unpacked(response._replace(body=packed[:-9]))


def test_a_request_has_its_lines_and_those_of_all() -> None:
    options = checked_options("https://me:p%3A@host:81/a/", 1.0, 0, "KEY")
    request = HttpRequest("POST", "/v2", {"x": "1"}, b"body")
    assert request_bytes(request, options) == (
        b"POST /a/v2 HTTP/1.1\r\nhost: host:81\r\naccept-encoding: identity\r\n"
        b"authorization: Basic bWU6cDo=\r\nx-api-key: KEY\r\nx: 1\r\ncontent-length: 4\r\n\r\nbody"
    )


@given(st.text(min_size=1), st.text(), st.text(), st.text())
def test_no_name_adds_a_line_to_the_head_of_a_request(
    model: str, version: str, request_id: str, output: str
) -> None:
    assume(model not in (".", "..") and version not in (".", ".."))
    options = checked_options("http://h", 1.0, 0)
    operation = infer_operation(model, {model: [1.0]}, version, [output], 0, request_id)
    lines = request_bytes(operation.request(1.0), options).partition(b"\r\n\r\n")[0].split(b"\n")
    assert [line.partition(b" ")[0] for line in lines] == [
        b"POST",
        b"host:",
        b"accept-encoding:",
        b"content-type:",
        b"inference-header-content-length:",
        b"content-length:",
    ]
    assert lines[0].count(b" ") == 2


@pytest.mark.parametrize(
    ("address", "connected", "authority"),
    [
        ("http://[::1]", ("::1", 80), "[::1]"),
        ("https://h", ("h", 443), "h"),
        ("http://Bücher.example:1", ("xn--bcher-kva.example", 1), "xn--bcher-kva.example:1"),
    ],
)
def test_an_address_is_where_to_connect_and_whom_to_ask(
    address: str, connected: tuple[str, int], authority: str
) -> None:
    options = checked_options(address, 1.0, 0)
    assert (options.address.host, options.address.port) == connected
    data = request_bytes(MetadataOperation("/v2").request(1.0), options)
    assert data.startswith(f"GET /v2 HTTP/1.1\r\nhost: {authority}\r\n".encode())


@pytest.mark.parametrize(
    "address",
    [
        "http://h/a b",
        "http://h:x",
        "http://h:0",
        "http://h:99999",
        "http://[::1",
        "http://a b",
        "http://h\r\nx: 1",
        "http://h\n",
    ],
)
def test_an_address_that_no_request_can_carry_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected one such as http://localhost:8080"):
        checked_options(address, 1.0, 0)
