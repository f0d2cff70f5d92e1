"""Large answers in bytes: the same as small ones, and copied beside the loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgpack
import numpy as np
import pytest

from batcher.codecs.joining import LARGE_BYTES
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, tensor

Both = Callable[[MemoryServer, bytes], Answer]
VALUES = LARGE_BYTES // 8
"""Values of a row: two rows are large."""

NATIVE = {
    "application/octet-stream": lambda body: np.frombuffer(body, "<f4").reshape(2, VALUES),
    "application/x-npy": lambda body: np.load(BytesIO(body)),
    "application/msgpack": lambda body: _from_map(msgpack.unpackb(body)["outputs"]["y"]),
}


def _from_map(found: dict[bytes, Any]) -> np.ndarray:
    assert list(found) == [b"nd", b"type", b"kind", b"shape", b"data"]
    return np.frombuffer(found[b"data"], found[b"type"]).reshape(found[b"shape"])


def server_of(columns: bool = False, **settings: int) -> MemoryServer:
    """Return a server whose model answers a row x with VALUES numbers from x on."""
    spec = model_spec(
        inputs=(tensor("x", "FP32", (1,)),), outputs=(tensor("y", "FP32", (VALUES,)),)
    )

    def predict(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = inputs["x"] + np.arange(VALUES, dtype="f4")
        return {"y": np.asfortranarray(y) if columns else y}

    return MemoryServer(RecordingModel(spec, predict), **settings)


EXPECTED = np.array([[1], [2]], "f4") + np.arange(VALUES, dtype="f4")
BODY = np.array([1, 2], "<f4").tobytes()


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("media_type", NATIVE)
def test_a_large_answer_is_whole_in_every_format(
    both: Both, media_type: str, columns: bool
) -> None:
    answer = both(server_of(columns), ask("/predict", BODY, ("Accept", media_type)))
    assert answer.status == 200
    np.testing.assert_array_equal(NATIVE[media_type](answer.body), EXPECTED)


OIP_HEAD = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "shape": [2, 1],
                "datatype": "FP32",
                "parameters": {"binary_data_size": 8},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
OIP = ask(
    "/v2/models/m/infer",
    OIP_HEAD + BODY,
    ("Inference-Header-Content-Length", str(len(OIP_HEAD))),
)


def test_a_large_binary_tensor_stands_whole_behind_its_json(both: Both) -> None:
    answer = both(server_of(), OIP)
    length = int(dict(answer.fields)["inference-header-content-length"])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": EXPECTED.nbytes}
    assert answer.body[length:] == EXPECTED.tobytes()


@pytest.mark.parametrize(
    "request_bytes", [OIP, *(ask("/predict", BODY, ("Accept", name)) for name in NATIVE)]
)
def test_a_large_answer_needs_a_place_in_the_pool_and_a_small_one_does_not(
    request_bytes: bytes,
) -> None:
    server = server_of()
    server.server.pools.cpu._queue.items = 10**9
    large = over_connection(server, request_bytes)
    assert (large.status, large.header("retry-after")) == (503, None)
    small = server.connect("loop")
    small.send(ask("/predict", BODY[:4]))
    server.work()
    assert [answer.status for answer in small.answers] == [200]


def test_large_answers_that_are_pipelined_leave_in_the_order_of_their_requests() -> None:
    server = server_of()
    client = server.connect("loop")
    first, second = (np.array([x, x], "<f4").tobytes() for x in (5, 7))
    client.send(ask("/predict", first) + ask("/predict", second))
    server.work()
    firsts = [np.frombuffer(answer.body, "<f4")[0] for answer in client.answers]
    assert firsts == [5, 7]
