"""Parts of ZeroMQ messages: any header is read or refused, tensors come out as they went in."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.oip.elements import to_elements
from batcher.codecs.zeromq_calls import call_header, read_answer_header
from batcher.codecs.zeromq_messages import (
    CallMessage,
    CancelMessage,
    InferMessage,
    error_header,
    infer_answer,
    infer_head,
    read_header,
    reply_header,
    tensors_in,
)
from batcher.core.request import InferenceResponse
from batcher.core.spec import DATATYPES
from batcher.errors import ClientError, DecodingError, InvalidInput
from tests.support.models import model_spec, tensor

SPEC = model_spec()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
MEMBERS = st.sampled_from(
    ["model_name", "model_version", "path", "method", "headers", "cancel", "inputs", "outputs"]
)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    with pytest.raises(ClientError):
        read_header(b"\xc1" + data)
    with suppress(ClientError):
        read_header(data)


@given(st.dictionaries(MEMBERS, ANYTHING))
def test_any_members_are_a_message_or_refused(document: dict[str, Any]) -> None:
    with suppress(ClientError):
        message = read_header(msgpack.packb(document))
        if isinstance(message, InferMessage):
            infer_head(message.document, SPEC)


@given(st.text(), st.text(), st.dictionaries(st.text("abc-", min_size=1), st.text("ab c!")))
def test_what_a_client_writes_is_what_the_server_reads(
    model: str, version: str, fields: dict[str, str]
) -> None:
    document = {"model_name": model, "model_version": version, "inputs": [], "headers": fields}
    message = read_header(msgpack.packb(document))
    wanted = {name.encode(): text.encode() for name, text in fields.items()}
    assert message == InferMessage(model, version, {"inputs": []}, wanted)
    call = read_header(call_header(b"", "GET", "/v2?a=b", fields))
    assert call == CallMessage("GET", "/v2", "a=b", wanted)


def test_a_message_that_takes_back_a_request_has_no_other_members() -> None:
    assert read_header(msgpack.packb({"cancel": True})) == CancelMessage()


@pytest.mark.parametrize("name", DATATYPES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_tensors_of_every_datatype_come_out_as_they_went_in(name: str, count: int) -> None:
    spec = model_spec((tensor("x", name, (2,)),), (tensor("y", name, (2,)),))
    if name == "BYTES":
        array: Any = np.array([[b"a", b""]] * count, object).reshape(count, 2)
        part = to_elements(array)
    else:
        array = np.arange(count * 2).reshape(count, 2).astype(DATATYPES[name].numpy)
        part = array.tobytes()
    entry = {"name": "x", "datatype": name, "shape": [count, 2]}
    if not count:
        with pytest.raises(ClientError):
            infer_head({"inputs": [{**entry, "shape": [-1, 2]}]}, spec)
    head = infer_head({"inputs": [entry]}, spec)
    found = tensors_in(head, [part])["x"]
    assert np.array_equal(plain_numbers(found, name), plain_numbers(array, name))
    response = InferenceResponse("m", "1", {"y": found}, 0.0, 0.0, 1)
    header, answer = infer_answer(response, head)
    assert bytes(answer) == part
    assert msgpack.unpackb(header)["outputs"] == [
        {"name": "y", "datatype": name, "shape": [count, 2]}
    ]


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"shape": [1, 4]}, []),
        ({"shape": [1, 4]}, [bytes(16), b""]),
        ({"shape": [1, 4]}, [bytes(15)]),
        ({"shape": [2**62, 4]}, [bytes(16)]),
        ({"shape": [1, 4], "data": [1, 2, 3, 4]}, []),
        ({"shape": [1, 4], "parameters": [1]}, [bytes(16)]),
        ({"shape": [1, 4], "parameters": {"shared_memory_region": "a"}}, [bytes(16)]),
    ],
    ids=str,
)
def test_parts_that_are_not_what_the_header_says_are_refused(
    entry: dict[str, Any], parts: list[bytes]
) -> None:
    document = {"inputs": [{"name": "x", "datatype": "FP32", **entry}]}
    with pytest.raises(ClientError):
        tensors_in(infer_head(document, SPEC), parts)


def test_more_inputs_than_the_model_has_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(InvalidInput, match="inputs: expected at most 1; got 1000"):
        infer_head({"inputs": [{}] * 1000}, SPEC)


@given(st.integers(100, 599), st.text(max_size=50), st.dictionaries(st.text(), st.text()))
def test_a_client_reads_what_the_server_writes(
    status: int, text: str, fields: dict[str, str]
) -> None:
    found = read_answer_header(b"12345678" + error_header(status, "a", text, fields))
    assert found == (b"12345678", status, fields, text)
    found = read_answer_header(b"12345678" + reply_header(status, fields))
    assert found == (b"12345678", status, fields, "")


@given(st.binary(max_size=100))
def test_a_client_reads_or_refuses_any_answer(data: bytes) -> None:
    with suppress(DecodingError):
        read_answer_header(data)
