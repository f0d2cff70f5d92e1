"""Uploads while a server watches: no half version is loaded, and no request is lost by a swap."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.end_to_end.processes import Process, run, started
from tests.integration.stores.conftest import Remote
from tests.integration.stores.counterparts import moto
from tests.integration.stores.test_serving import CODE, MODEL, answer, settings, wait_until

UPLOADS = 100
PARTS = 8
WHOLE = f"""
import os
class Net:
    def __init__(self):
        there = len([name for name in os.listdir(os.path.dirname(__file__)) if "part" in name])
        assert there == {PARTS}, there
    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""
GAP_S = 0.2
SWAPS = int(os.environ.get("SWAPS", "5"))
"""Versions that follow one another under load; each is waited for, some seconds."""


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """Return a bucket of moto."""
    pytest.importorskip("obstore", reason="the extra `stores` is not installed")
    (tmp_path / "moto").mkdir()
    with moto(tmp_path / "moto") as counterpart:
        for name, value in counterpart.environment.items():
            monkeypatch.setenv(name, value)
        yield Remote(counterpart, tmp_path)


def upload(bucket: Remote, number: int) -> None:
    """Put ten files in a random order, with gaps."""
    random = Random(number)
    files = {f"part{part}": b"x" * number for part in range(PARTS)}
    files |= {"net.py": WHOLE.encode(), "model.yaml": MODEL}
    names = list(files)
    random.shuffle(names)
    for name in names:
        time.sleep(random.uniform(0, GAP_S))
        bucket.put(f"m{number}/1/{name}", files[name])


def changes(server: Process, outcome: str) -> float:
    """Return how many changes of the repository had this outcome."""
    return server.metric(f'batcher_repository_changes_total{{outcome="{outcome}"}}')


def test_of_a_hundred_uploads_in_random_order_no_half_is_loaded(
    bucket: Remote, tmp_path: Path
) -> None:
    bucket.put("first/1/net.py", (CODE % 2).encode())
    bucket.put("first/1/model.yaml", MODEL)
    with started(
        tmp_path, *settings(bucket, tmp_path), environment=bucket.counterpart.environment
    ) as server:
        with ThreadPoolExecutor(10) as threads:
            list(threads.map(lambda number: upload(bucket, number), range(UPLOADS)))
        wait_until(lambda: changes(server, "applied") >= UPLOADS, server)
        assert changes(server, "refused") == 0
        assert [answer(server, f"m{number}") for number in range(UPLOADS)] == [1] * UPLOADS


def test_versions_that_follow_one_another_lose_no_request(tmp_path: Path) -> None:
    repository, version = tmp_path / "repository", tmp_path / "m"
    version.mkdir()

    def push(factor: int) -> None:
        (version / "net.py").write_text(CODE % factor)
        (version / "model.yaml").write_bytes(MODEL)
        assert run("models", "push", str(version), str(repository)).returncode == 0

    push(1)
    pairs = (f"model_repository={repository}", "watch_repository_s=0.1", "defaults.device=cpu")
    arguments = (part for pair in pairs for part in ("--set", pair))
    seen: list[float] = []
    with started(tmp_path, *arguments) as server, httpx.Client(base_url=server.address) as client:
        for factor in range(2, SWAPS + 2):
            push(factor)
            while not seen or seen[-1] != factor:
                reply = client.post("/models/m/predict", json={"inputs": {"x": [[1]]}}, timeout=30)
                assert reply.status_code == 200, reply.text
                seen.append(reply.json()["outputs"]["y"][0][0])
        assert changes(server, "refused") == 0
    assert seen == sorted(seen), "an answer of an earlier version came after one of a later version"
