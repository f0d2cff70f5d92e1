"""Each front-end of `examples/` reads a digit, says when to come back, and asks no other site."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.end_to_end.processes import Process, started, until
from tests.integration.fronts.fronts import EXAMPLES, FRONTS, PICTURE, Front, clicked, running

EACH_FRONT = pytest.mark.parametrize("front", FRONTS, ids=lambda front: front.name)
MOST_LINES = 60
NEXT_ROW_S = 1000
QUOTA = f'{{"*": {{rows_per_s: {1 / NEXT_ROW_S}, burst_rows: 1, name: all}}}}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("server")
    with started(folder, "--set", "defaults.torch_threads=1") as process:
        yield process


@pytest.fixture(scope="module")
def busy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Return a server whose quota is used up."""
    folder = tmp_path_factory.mktemp("busy")
    settings = ("--set", "defaults.torch_threads=1", "--set", f"quotas={QUOTA}")
    with started(folder, *settings) as process:
        with PICTURE.open("rb") as picture:
            address = f"{process.address}/models/digits/predict"
            assert requests.post(address, files={"image": picture}, timeout=30).status_code == 200
        yield process


@EACH_FRONT
def test_an_example_has_few_lines(front: Front) -> None:
    (file,) = (EXAMPLES / front.name).glob("app.*")
    assert len(file.read_text().splitlines()) <= MOST_LINES


@EACH_FRONT
def test_a_browser_without_a_network_gets_a_digit_read(
    front: Front, server: Process, tmp_path: Path
) -> None:
    with running(front, server.address, tmp_path / "log.txt") as address:
        found = clicked(front, address, front.answer)
    assert found["seen"], found["text"]
    assert found["foreign"] == []


def test_a_request_to_another_site_would_be_noticed(tmp_path: Path) -> None:
    elsewhere = "https://elsewhere.invalid/statistics.js"
    page = f"<script src={elsewhere} async></script><input type=file><p>It is a 3"
    (tmp_path / "index.html").write_text(page)
    command = ("-m", "http.server", "PORT", "--bind", "127.0.0.1")
    front = Front("files", command, button="", folder=tmp_path)
    with running(front, "", tmp_path / "log.txt") as address:
        assert clicked(front, address, front.answer)["foreign"] == [elsewhere]


@EACH_FRONT
def test_a_person_is_told_when_to_come_back(
    front: Front, busy_server: Process, tmp_path: Path
) -> None:
    with running(front, busy_server.address, tmp_path / "log.txt") as address:
        found = clicked(front, address, r"Try again in \d+ s")
    assert found["seen"], found["text"]


SLOW_DIGITS = """
import time

import numpy as np


class Model:
    def predict(self, inputs):
        time.sleep({seconds})
        return {{"scores": np.eye(10, dtype=np.float32)[np.full(len(inputs["image"]), 3)]}}
"""
SPECIFICATION = """
format: python
class: code:Model
inputs: [{name: image, dtype: FP32, shape: [1, 8, 8], image: {mode: grey}}]
outputs: [{name: scores, dtype: FP32, shape: [10]}]
"""


@contextmanager
def slow_server(folder: Path, seconds: float) -> Iterator[Process]:
    """Run a server of a model called `digits` that takes its time and always finds a 3."""
    model = folder / "models" / "digits" / "1"
    model.mkdir(parents=True)
    (model / "code.py").write_text(SLOW_DIGITS.format(seconds=seconds))
    (model / "model.yaml").write_text(SPECIFICATION)
    # A warm-up would run each size of batch twice.
    settings = (f"model_repository={folder / 'models'}", "defaults.warmup=false")
    with started(folder, *(part for pair in settings for part in ("--set", pair))) as process:
        yield process


def named(name: str) -> Front:
    """Return the front-end called `name`."""
    return next(front for front in FRONTS if front.name == name)


REQUESTS = 600


def test_fifty_threads_of_flask_share_the_connections_of_one_client_and_fill_batches(
    tmp_path: Path,
) -> None:
    picture = PICTURE.read_bytes()
    connections = 0.0

    def ask(address: str) -> tuple[int, bool]:
        answer = requests.post(address, files={"picture": picture}, timeout=60)
        return answer.status_code, "It is a 3" in answer.text

    with (
        slow_server(tmp_path, 0.2) as server,
        running(named("flask"), server.address, tmp_path / "log.txt") as address,
        ThreadPoolExecutor(50) as pool,
    ):
        answers = [pool.submit(ask, address) for _ in range(REQUESTS)]
        while not all(answer.done() for answer in answers):
            connections = max(connections, server.metric("batcher_connections"))
        assert {answer.result() for answer in answers} == {(200, True)}
        rows = server.metric("batcher_batch_size_sum")
        assert rows == REQUESTS
        assert rows / server.metric("batcher_batch_size_count") >= 8
    assert 1 < connections <= 32 + 1  # those of the client, and the one that asks for metrics


@pytest.mark.parametrize("name", ["django", "node"])
def test_a_browser_that_leaves_takes_its_row_along(name: str, tmp_path: Path) -> None:
    with (
        slow_server(tmp_path, 2) as server,
        running(named(name), server.address, tmp_path / "log.txt") as address,
    ):
        route = {"django": "/", "node": "/digits"}[name]
        with pytest.raises(requests.ReadTimeout):
            requests.post(address + route, **content(name), timeout=0.7)
        until(lambda: server.metric("batcher_cancelled_rows_total") == 1)


def content(name: str) -> dict[str, Any]:
    """Return the arguments that have requests send the picture as the page of `name` does."""
    picture = PICTURE.read_bytes()
    if name == "node":
        return {"data": picture, "headers": {"Content-Type": "image/png"}}
    return {"files": {"picture": picture}}


@pytest.mark.parametrize("name", ["flask", "django", "fastapi", "node"])
def test_a_program_reads_status_and_retry_after_of_the_server(
    name: str, busy_server: Process, tmp_path: Path
) -> None:
    route = "/digits" if name in ("fastapi", "node") else "/"
    with running(named(name), busy_server.address, tmp_path / "log.txt") as address:
        answer = requests.post(address + route, **content(name), timeout=30)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= NEXT_ROW_S
        broken = {"data": b"no picture", "headers": {"Content-Type": "image/png"}}
        if name != "node":
            broken = {"files": {"picture": b"no picture"}}
        answer = requests.post(address + route, **broken, timeout=30)
        assert (answer.status_code, "no picture" in answer.text) == (400, True)
