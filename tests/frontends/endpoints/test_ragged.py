"""Rows of unequal length: one run of the batch, and each request gets its own answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from batcher.core.ragged import ragged
from batcher.core.spec import Array
from batcher.models.protocol import PartialOutputs
from tests.frontends.endpoints.oip.test_infer import INFER
from tests.support.http import MemoryServer, ask
from tests.support.models import RecordingModel, model_spec, tensor

SPEC = model_spec(
    inputs=(tensor("n", "INT32", ()),), outputs=(tensor("y", "FP32", (-1,)),), name="m"
)


class Counting(RecordingModel):
    """Answers each row n with n ones; a negative row fails by itself."""

    def __init__(self) -> None:
        super().__init__(SPEC)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.batches.append(dict(inputs))
        counts = inputs["n"].tolist()
        rows = {"y": ragged([np.ones(max(count, 0), "<f4") for count in counts])}
        failed = {row: ValueError("no") for row, count in enumerate(counts) if count < 0}
        return PartialOutputs(rows, dict(failed)) if failed else rows


def request(*counts: int, path: str = "/predict", accept: str = "*/*") -> bytes:
    if path == INFER:
        entry = {"name": "n", "datatype": "INT32", "shape": [len(counts)], "data": counts}
        document: dict[str, Any] = {"inputs": [entry]}
    else:
        document = {"inputs": {"n": counts}}
    body = json.dumps(document).encode()
    return ask(path, body, ("Accept", accept), content_type="application/json")


def answers(server: MemoryServer, *requests: bytes) -> list[Any]:
    clients = [server.connect("loop") for _ in requests]
    for client, message in zip(clients, requests, strict=True):
        client.send(message)
    server.work()
    return [client.answers[0] for client in clients]


def test_each_request_of_a_batch_gets_its_own_rows_in_one_run() -> None:
    server = MemoryServer(Counting())
    found = answers(server, request(2), request(0), request(3, 1), request(-1), request(2, 2))
    assert server.model.sizes() == [7], "the batch is run once"
    assert [answer.status for answer in found] == [200, 200, 200, 500, 200]
    bodies = [json.loads(found[number].body)["outputs"]["y"] for number in (0, 1, 2, 4)]
    assert bodies == [[[1, 1]], [[]], [[1, 1, 1], [1]], [[1, 1], [1, 1]]]
    assert server.server.metrics.model("m", "1").failed_batches == 0


def test_a_request_that_is_cut_into_batches_is_put_together() -> None:
    server = MemoryServer(Counting(), defaults={"max_batch_size": 2})
    (found,) = answers(server, request(3, 1, 2, 2, 0))
    lengths = [len(row) for row in json.loads(found.body)["outputs"]["y"]]
    assert lengths == [3, 1, 2, 2, 0]


def test_the_open_inference_protocol_answers_rows_of_one_shape_and_refuses_others() -> None:
    server = MemoryServer(Counting())
    one, even, uneven = answers(
        server, request(2, path=INFER), request(1, 1, path=INFER), request(2, 1, path=INFER)
    )
    assert [json.loads(each.body)["outputs"][0]["shape"] for each in (one, even)] == [
        [1, 2],
        [2, 1],
    ]
    assert uneven.status == 406
    assert b"expected rows of one shape" in uneven.body


@pytest.mark.parametrize("accept", ["application/octet-stream", "application/x-npy"])
def test_raw_formats_hold_a_single_row(accept: str) -> None:
    server = MemoryServer(Counting())
    one, uneven = answers(server, request(2, accept=accept), request(2, 1, accept=accept))
    assert one.status == 200
    assert one.body.endswith(np.ones(2, "<f4").tobytes())
    assert uneven.status == 406
