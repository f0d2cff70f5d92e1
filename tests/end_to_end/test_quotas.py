"""Quotas and deep readiness of a real server.

Keys come in real headers and metadata, and a model really hangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from batcher.client import Client, InferenceFailed
from tests.end_to_end.processes import Process, started, write_model
from tests.end_to_end.test_grpc import SLOW, infer_on, row

QUOTAS = (
    "{web-key: {rows_per_s: 0.01, burst_rows: 2, name: web}, rpc-key: {rows_per_s: 0.01}, "
    "fast-key: {rows_per_s: 2}}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("quotas")
    write_model(folder / "models", "m", SLOW)
    arguments = (
        "--grpc-port",
        "0",
        "--set",
        f"model_repository={folder / 'models'}",
        "--set",
        f"quotas={QUOTAS}",
    )
    with started(folder, *arguments, "--set", "defaults.timeout_ms=500") as process:
        yield process
        output = process.errors + "".join(process.lines)
        assert not any(key in output for key in ("Traceback", "web-key", "rpc-key", "fast-key"))


def test_a_client_over_its_quota_is_refused_and_others_are_not(server: Process) -> None:
    inputs = {"x": np.zeros((1, 4), np.float32)}
    with (
        Client(server.address, api_key="web-key", retries=0) as client,
        Client(server.address) as other,
    ):
        for _ in range(2):
            client.infer("m", inputs)
        with pytest.raises(InferenceFailed) as refusal:
            client.infer("m", inputs)
        for _ in range(5):
            other.infer("m", inputs)
    assert (refusal.value.status, refusal.value.retry_after) == (429, 100)
    with urlopen(f"{server.address}/metrics") as answer:
        assert b'batcher_quota_rejected_rows_total{quota="web"} 1.0' in answer.read()


def test_a_client_comes_back_when_it_is_told_to(server: Process) -> None:
    with Client(server.address, api_key="fast-key") as client:
        for _ in range(4):
            client.infer("m", {"x": np.zeros((1, 4), np.float32)})


def test_a_call_over_its_quota_is_resource_exhausted(server: Process) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        metadata = (("authorization", "Bearer rpc-key"),)
        infer_on(channel)(row(0), metadata=metadata)
        with pytest.raises(grpc.RpcError) as refusal:
            infer_on(channel)(row(0), metadata=metadata)
        infer_on(channel)(row(0))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


HANGS = """
import time

class Model:
    def load(self, device):
        self.warm = False

    def predict(self, inputs):
        while len(inputs["x"]) == 1 and self.warm:
            time.sleep(0.1)
        self.warm = len(inputs["x"]) > 1
        return {"y": inputs["x"]}
"""


def test_a_model_that_hangs_is_ready_only_for_who_looks_no_deeper(
    server: Process, tmp_path: Path
) -> None:
    with urlopen(f"{server.address}/readyz?deep=1") as answer:
        assert b'"seconds":{"m/1":' in answer.read()
    write_model(tmp_path / "models", "m", HANGS)
    arguments = (
        "--set",
        f"model_repository={tmp_path / 'models'}",
        "--set",
        "defaults.timeout_ms=500",
    )
    with started(
        tmp_path, *arguments, "--set", "defaults.max_batch_size=2", "--set", "drain_timeout_s=0.5"
    ) as process:
        with urlopen(f"{process.address}/readyz") as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError) as refusal:
            urlopen(f"{process.address}/readyz?deep=1")
        assert (refusal.value.code, b"deadline_exceeded" in refusal.value.read()) == (503, True)
