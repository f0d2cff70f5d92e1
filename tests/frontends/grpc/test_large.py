"""Large messages: what is cut up means what the library of the protocol reads, within bounds."""

from __future__ import annotations

import asyncio
import signal
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.errors import ClientError, DecodingError, InvalidInput, TooLarge
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import MAX_SMALL_BYTES, small_message
from batcher.frontends.grpc.large import (
    LARGE_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    InferMessage,
    read_infer_message,
)
from batcher.frontends.grpc.requests import InferMessageReader
from batcher.frontends.grpc.typed import MAX_TYPED_VALUES, typed_inputs
from batcher.frontends.grpc.wire import count_values
from tests.frontends.grpc.conftest import Context, Rpc, request, run
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, model_spec, tensor

ROWS = LARGE_BYTES // 16 + 1
"""Rows of four floats, enough for a large message."""


def numbers(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype="<f4").reshape(shape)


def raw_message(array: Any, **more: Any) -> pb.ModelInferRequest:
    entry = {"name": "x", "datatype": "FP32", "shape": array.shape}
    return pb.ModelInferRequest(
        model_name="m", id="i", inputs=[entry], raw_input_contents=[array.tobytes()], **more
    )


def typed_message(datatype: str, field: str, values: Any) -> pb.ModelInferRequest:
    entry = {"name": "x", "datatype": datatype, "shape": [len(values)], "contents": {field: values}}
    return pb.ModelInferRequest(model_name="m", inputs=[entry])


def inputs_of(asked: InferMessage, **spec: Any) -> dict[str, Any]:
    """Return the inputs that the request has for a model with the input `x`."""
    reader = InferMessageReader(model_spec(inputs=(tensor("x", **spec),)))
    found = reader.read(asked.message, asked.tensors)
    return typed_inputs(found.typed, found.head.binaries) if found.typed else found.inputs()


def whole(data: bytes) -> InferMessage:
    """Return the request as the library reads it."""
    return InferMessage(pb.ModelInferRequest.FromString(data))


def test_tensors_in_bytes_are_views_of_the_message() -> None:
    array = numbers(ROWS, 4)
    data = raw_message(array).SerializeToString()
    asked = read_infer_message(data)
    assert asked.tensors is not None
    found = inputs_of(asked)["x"]
    np.testing.assert_array_equal(found, array)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    assert (asked.message.id, asked.message.model_name) == ("i", "m")


@pytest.mark.parametrize("zeros", [0, 1, 4095, 4096, 1 << 20])
def test_leading_zeros_of_a_version_take_no_room_besides_the_tensors(zeros: int) -> None:
    asked = read_infer_message(
        raw_message(numbers(ROWS, 4), model_version="0" * zeros + "120").SerializeToString()
    )
    assert len(asked.message.model_version) < 4100
    assert asked.message.model_version.lstrip("0") == "120"


def test_a_version_of_other_digits_counts_besides_the_tensors() -> None:
    message = raw_message(numbers(ROWS, 4), model_version="1" * MAX_HEAD_BYTES)
    with pytest.raises(InvalidInput, match="besides the tensors"):
        read_infer_message(message.SerializeToString())


def test_small_messages_are_read_by_the_library() -> None:
    assert read_infer_message(request(1).SerializeToString()) == InferMessage(request(1))


TYPED = [
    ("BOOL", "bool_contents", [True, False] * 40_000),
    ("INT8", "int_contents", [-128, 127, 0, 5] * 10_000),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1] * 50_000),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1, 0] * 10_000),
    ("UINT16", "uint_contents", [0, 65_535] * 40_000),
    ("UINT64", "uint64_contents", [0, 2**64 - 1] * 50_000),
    ("FP32", "fp32_contents", [0.5, -1.0] * 50_000),
    ("FP64", "fp64_contents", [0.1, -1e300] * 20_000),
    ("BYTES", "bytes_contents", [b"", b"a" * 100] * 5000),
]


@pytest.mark.parametrize(("datatype", "field", "values"), TYPED, ids=[row[0] for row in TYPED])
def test_typed_contents_mean_the_same_wherever_they_are_read(
    datatype: str, field: str, values: list[Any]
) -> None:
    data = typed_message(datatype, field, values).SerializeToString()
    asked = read_infer_message(data)
    assert asked.tensors is not None
    (contents,) = asked.tensors.contents
    assert count_values(contents, len(values)) == len(values)
    assert count_values(contents, len(values) - 1) == len(values)
    found = inputs_of(asked, dtype=datatype, shape=())["x"]
    np.testing.assert_array_equal(found, inputs_of(whole(data), dtype=datatype, shape=())["x"])


def outcome(read: Callable[[bytes], InferMessage], data: bytes) -> Any:
    """Return what a request with those bytes is, or the class of its error."""
    try:
        asked = read(data)
        return inputs_of(asked)["x"].tobytes(), asked.message.id, asked.message.model_name
    except Exception as err:
        return type(err)


@given(st.data())
def test_whatever_a_message_holds_is_read_as_the_library_reads_it_or_refused(data: Any) -> None:
    more = {"model_version": "1", "outputs": [{"name": "y"}]}
    encoded = bytearray(raw_message(numbers(ROWS, 4), **more).SerializeToString())
    places = st.integers(0, 60) | st.integers(len(encoded) - ROWS * 16 - 9, len(encoded) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(places)] = data.draw(st.integers(0, 255))
    cut = outcome(read_infer_message, bytes(encoded))
    if isinstance(cut, tuple):
        assert cut == outcome(whole, bytes(encoded))
    else:
        assert issubclass(cut, ClientError)


def tagged(number: int, content: bytes) -> bytes:
    """Return a field of bytes."""
    message = pb.InferTensorContents(bytes_contents=[content]).SerializeToString()
    return bytes([number << 3 | 2]) + message[1:]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda size: tagged(5, b"") * (size // 2), f"at most {MAX_FIELDS} fields"),
        (lambda size: tagged(7, b"") * (size // 2), f"at most {MAX_FIELDS} fields"),
        (lambda size: tagged(5, tagged(4, b"") * (size // 2)), f"at most {MAX_FIELDS} fields"),
        (lambda size: tagged(1, b"a" * size), f"at most {MAX_HEAD_BYTES} bytes besides"),
        (lambda size: tagged(15, b"a" * size), f"at most {MAX_HEAD_BYTES} bytes besides"),
        (lambda size: tagged(5, tagged(3, b"\1" * size)), f"at most {MAX_HEAD_BYTES} bytes"),
        (lambda size: b"\x0b" * size, "expected a ModelInferRequest"),
        (lambda size: b"\xff" * size, "expected a ModelInferRequest"),
        (lambda size: b"\0" * size, "expected a ModelInferRequest"),
    ],
)
def test_a_message_of_a_million_fields_is_refused_before_it_takes_memory(
    make: Callable[[int], bytes], complaint: str
) -> None:
    data = make(1 << 20)
    tracemalloc.start()
    with pytest.raises((InvalidInput, DecodingError), match=complaint):
        read_infer_message(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 21, "the library would take 50 MB and more"


def test_contents_of_more_values_than_are_taken_are_refused_before_a_message_is_made() -> None:
    # A million empty texts of two bytes each would be objects of 50 bytes.
    contents = tagged(8, b"") * (MAX_TYPED_VALUES + 1)
    head = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1])
    data = tagged(1, b"m") + tagged(5, head.SerializeToString() + tagged(5, contents))
    with pytest.raises(InvalidInput, match="raw_input_contents for more than 1048576 values"):
        inputs_of(read_infer_message(data), dtype="BYTES", shape=())


def test_contents_beside_bytes_are_refused() -> None:
    message = typed_message("FP32", "fp32_contents", [1.0] * LARGE_BYTES)
    message.raw_input_contents.append(b"")
    with pytest.raises(InvalidInput, match="got both"):
        inputs_of(read_infer_message(message.SerializeToString()))


def test_other_calls_take_small_messages_alone() -> None:
    with pytest.raises(TooLarge, match=f"ModelReadyRequest of at most {MAX_SMALL_BYTES} bytes"):
        small_message(pb.ModelReadyRequest, b"\0" * (MAX_SMALL_BYTES + 1))


@pytest.mark.parametrize("typed", [False, True])
def test_a_large_request_is_answered(typed: bool) -> None:
    array = numbers(HEAVY_BYTES // 4, 1)
    spec = model_spec(inputs=(tensor("x", shape=(1,)),), outputs=(tensor("y", shape=(1,)),))
    message = raw_message(array)
    if typed:
        message = typed_message("FP32", "fp32_contents", array.ravel().tolist())
        message.inputs[0].shape[:] = array.shape
    data = message.SerializeToString()
    assert bool(InferMessageReader(spec).read(*read_infer_message(data)).typed) == typed
    sizes = {"max_queue_rows": len(array), "max_batch_size": len(array)}
    rpc = Rpc(MemoryServer(RecordingModel(spec), defaults=sizes))

    async def test() -> None:
        message, tensors = read_infer_message(data)
        task = asyncio.ensure_future(rpc.inference.infer(message, Context(), tensors))
        await rpc.settle()
        (raw,) = (await task).raw_output_contents
        np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), array.ravel() * 2)

    run(test)
    rpc.server.server.stop()
    # The process for heavy codecs starts on this thread here, and must leave its signals alone.
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
