"""The figures in docs/memory.md, worked out from the code and from objects as large as they get."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.oip.answering import MAX_KEPT_HEAD_BYTES, MAX_KEPT_HEADS
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import MAX_SMALL_BYTES
from batcher.frontends.grpc.front import MAX_CONNECTION_CALLS, MAX_ENDED_CALLS, MAX_PENDING_CALLS
from batcher.frontends.grpc.large import MAX_FIELDS, MAX_HEAD_BYTES
from batcher.frontends.grpc.requests import InferMessageReader
from batcher.frontends.grpc.typed import MAX_TYPED_VALUES
from tests.support.models import model_spec, tensor

PAGE = (Path(__file__).parent.parent / "docs" / "memory.md").read_text()
KIB, MIB = 1 << 10, 1 << 20
SETTINGS = ServerSettings()


def row(what: str) -> str:
    """Return the row of the page's table about `what`."""
    (found,) = [line for line in PAGE.splitlines() if line.startswith(f"| {what}")]
    return found


def full_message(number: int, names: list[str]) -> pb.ModelInferRequest:
    """Return a message with as many inputs, which cost most, as a head that is kept may have."""
    message = pb.ModelInferRequest(parameters={"p": pb.InferParameter(int64_param=number)})
    for name in names:
        message.inputs.add(name=name, datatype="FP32", shape=[1, 4])
    message.raw_input_contents.extend([np.zeros(4, "<f4").tobytes()] * len(names))
    return message


def test_heads_of_grpc_requests() -> None:
    assert f"the last {MAX_KEPT_HEADS} of at most {MAX_KEPT_HEAD_BYTES // KIB} KiB" in row("heads")
    names = [chr(ord("0") + number) for number in range(60)]
    reader = InferMessageReader(model_spec(inputs=tuple(map(tensor, names))))
    messages = [full_message(number, names) for number in range(MAX_KEPT_HEADS)]
    gc.collect()
    tracemalloc.start()
    for message in messages:
        reader.read(message)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(reader._heads) == MAX_KEPT_HEADS
    assert all(MAX_KEPT_HEAD_BYTES * 0.8 < len(key) <= MAX_KEPT_HEAD_BYTES for key in reader._heads)
    assert size < 256 * KIB
    assert "256 KiB" in row("heads")


def test_calls_of_grpc() -> None:
    calls = row("calls of one connection")
    assert f"{MAX_CONNECTION_CALLS} run, {MAX_ENDED_CALLS} have ended" in calls
    assert f"{MAX_CONNECTION_CALLS + MAX_ENDED_CALLS} calls" in calls
    waiting = row("calls that no coroutine answers yet")
    assert f"{MAX_PENDING_CALLS:,} of 5 KiB" in waiting
    assert f"{MAX_PENDING_CALLS * (5 + 8) * KIB // MIB} MiB" in waiting


@pytest.mark.parametrize(
    ("what", "figure"),
    [
        ("objects made of one", f"{MAX_FIELDS:,} fields of {MAX_HEAD_BYTES // KIB} KiB together"),
        ("values in the typed", f"{MAX_TYPED_VALUES:,} values"),
        ("messages of calls", f"{MAX_SMALL_BYTES // KIB} KiB"),
        ("connections", f"{ServerSettings().max_connections:,}"),
        ("rows of a batch", f"{ModelSettings().max_client_batch_size:,} rows"),
        ("inputs and outputs of one", f"{ModelSettings().max_queue_bytes // MIB} MiB"),
        ("one message", f"{ServerSettings().max_body_bytes // MIB} MiB"),
    ],
)
def test_settings(what: str, figure: str) -> None:
    assert row(what).endswith(f"| {figure} |")


@pytest.mark.parametrize(
    ("what", "nbytes"),
    [
        ("bodies and answers that wait", SETTINGS.max_decoding_bytes),
        ("what that process needs", 8 * SETTINGS.max_body_bytes),
        ("bodies that wait for the CPU pool", SETTINGS.cpu_pool_bytes),
        ("bodies that come", SETTINGS.max_buffer_bytes),
    ],
)
def test_large_bodies(what: str, nbytes: int) -> None:
    assert row(what).endswith(f"| {nbytes // MIB} MiB |")
