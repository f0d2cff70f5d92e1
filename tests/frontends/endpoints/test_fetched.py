"""Requests that name files, over HTTP: natively, and in the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import msgpack
import numpy as np
import pytest

from batcher.config.model_settings import ModelOverrides
from tests.codecs.formats.test_references import CONTENTS as PICTURES
from tests.codecs.formats.test_references import NAME, PICTURE, RIGHT, ROWS, npy
from tests.support.http import MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.memory_store import MemoryStore
from tests.support.models import RecordingModel

Stack = Callable[[MemoryServer, bytes], Answer]
JSON = "application/json"


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """Return what every bucket has."""
    files = {"in/rows.npy": npy(ROWS), "in/0": PICTURES["s3://p/0"], "in/1": PICTURES["s3://p/1"]}
    found = MemoryStore(files)
    with patch("batcher.serving.references.fetcher.open_bucket", lambda _: found):
        yield found


def server(*models: RecordingModel, **more: Any) -> MemoryServer:
    return MemoryServer(*models, **{"input_sources": ["s3://box/in/"], **more})


def ref(name: str) -> dict[str, str]:
    return {"ref": f"s3://box/in/{name}"}


def natively(value: Any, **more: Any) -> bytes:
    body = json.dumps({"inputs": {"x": value}}).encode()
    return ask("/predict", body, content_type=JSON, **more)


def by_protocol(parameters: dict[str, Any], **more: Any) -> bytes:
    entry = {"name": "x", "datatype": "FP32", "parameters": parameters, **more}
    body = json.dumps({"inputs": [entry]}).encode()
    return ask("/v2/models/m/infer", body, content_type=JSON)


BOTH = pytest.mark.parametrize("write", [natively, by_protocol])


def outputs(answer: Answer) -> Any:
    found = answer.decoded()["outputs"]
    values = found["y"] if isinstance(found, dict) else found[0]["data"]
    return np.reshape(values, ROWS.shape)


@BOTH
def test_an_array_in_a_bucket_is_an_input(stack: Stack, store: MemoryStore, write: Any) -> None:
    memory = server()
    answer = stack(memory, write(ref("rows.npy")))
    assert answer.status == 200, answer.body
    assert np.array_equal(outputs(answer), ROWS * 2)
    assert store.fetched == len(npy(ROWS))
    assert stack(memory, write(ref("rows.npy"))).status == 200
    assert store.fetched == len(npy(ROWS))  # it was kept


def test_messagepack_and_pictures(stack: Stack, store: MemoryStore) -> None:
    memory = server()
    body = msgpack.packb({"inputs": {"x": ref("rows.npy")}})
    answer = stack(memory, ask("/predict", body, content_type="application/msgpack"))
    assert answer.status == 200
    model = RecordingModel(PICTURE, lambda inputs: {"y": np.zeros((len(inputs[NAME]), 4), "f4")})
    memory = server(model)
    body = json.dumps({"instances": [ref("0"), ref("1")]}).encode()
    answer = stack(memory, ask("/predict", body, content_type=JSON))
    assert answer.status == 200
    assert np.array_equal(model.batches[0][NAME], RIGHT)


def test_a_body_that_names_none_is_answered_as_ever(stack: Stack, store: MemoryStore) -> None:
    memory = server()
    for body in ([[1, 2, 3, 4]], [[1, 2, 3, 4]] * 2):
        assert stack(memory, natively(body)).status == 200
    named = {"inputs": {"x": [[1, 2, 3, 4]]}, "ref": "of the client"}
    answer = stack(memory, ask("/predict", json.dumps(named).encode(), content_type=JSON))
    assert answer.status == 200
    assert store.fetched == 0


@BOTH
@pytest.mark.parametrize(
    ("address", "status", "says"),
    [
        ("s3://box/in/none", 404, "'s3://box/in/none': expected a file; there is none"),
        ("s3://box/out/1", 400, "expected an address below one of the prefixes"),
        ("s3://box/in/../out/1", 400, "no step that leads to another folder"),
        ("http://169.254.169.254/latest", 400, "below one of the prefixes"),
        ("s3://box/in/0", 400, "expected a file of .npy, or nested lists in JSON"),
    ],
)
def test_what_cannot_be_fetched_says_why(
    stack: Stack, store: MemoryStore, write: Any, address: str, status: int, says: str
) -> None:
    answer = stack(server(), write({"ref": address}))
    assert (answer.status, says in answer.decoded()["error"]) == (status, True), answer.body


@BOTH
def test_a_store_that_fails_is_a_502_without_its_words(
    stack: Stack, store: MemoryStore, write: Any
) -> None:
    store.away = True
    answer = stack(server(), write(ref("0")))
    assert answer.status == 502
    assert "is away" not in answer.decoded()["error"]


@BOTH
def test_without_prefixes_no_address_is_looked_at(
    stack: Stack, store: MemoryStore, write: Any
) -> None:
    answer = stack(server(input_sources=[]), write(ref("rows.npy")))
    assert answer.status == 400
    assert store.fetched == 0


def test_the_shape_in_the_protocol_is_checked_or_left_out(stack: Stack, store: MemoryStore) -> None:
    memory, named = server(), ref("rows.npy")
    assert stack(memory, by_protocol(named, shape=[2, 4])).status == 200
    answer = stack(memory, by_protocol(named, shape=[1, 4]))
    assert answer.status == 400
    assert "expected the shape [1,4]; got [2,4]" in answer.decoded()["error"]
    for more in ({"data": [1, 2, 3, 4]}, {"parameters": {**named, "binary_data_size": 16}}):
        answer = stack(memory, by_protocol(**{"parameters": named, **more}))
        assert "expected data, binary_data_size or ref" in answer.decoded()["error"]


def test_an_array_of_another_dtype_is_refused(stack: Stack, store: MemoryStore) -> None:
    store.files["in/wide.npy"] = npy(ROWS.astype("<f8"))
    answer = stack(server(), natively(ref("wide.npy")))
    assert answer.status == 400
    assert "expected FP32" in answer.decoded()["error"]


def test_what_files_become_is_kept_where_asked_for(stack: Stack, store: MemoryStore) -> None:
    kept = ModelOverrides(cache={"inputs": True})
    memory = server(models={"m": kept}, input_cache_ttl_s=0)
    memory.turn()  # its files are looked at
    decoded = memory.server.metrics.caches.of("m", "1").decoded
    found = [{"miss": 1}, {"miss": 1, "hit": 1}, {"miss": 2, "hit": 1}, {"miss": 2, "hit": 2}]
    for write, counts in zip((natively, natively, by_protocol, by_protocol), found, strict=True):
        assert np.array_equal(outputs(stack(memory, write(ref("rows.npy")))), ROWS * 2)
        assert decoded == counts
    store.files["in/rows.npy"] = npy(ROWS + 1)
    for write in (natively, by_protocol):
        assert np.array_equal(outputs(stack(memory, write(ref("rows.npy")))), (ROWS + 1) * 2)


@BOTH
def test_a_client_that_leaves_while_files_are_fetched_leaves_nothing(
    store: MemoryStore, write: Any
) -> None:
    memory = server()
    client = memory.connect("loop")
    # The thread is done with its task, and the loop has not heard of it.
    client.send(write(ref("rows.npy")))
    memory.check_nothing_is_left()
    assert not memory.model.batches
    assert memory.server.fetcher._held == 0
