"""Servers that list themselves in a directory, and a client that follows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from batcher.client import AnswerLost, Client, ClientFailure
from batcher.client.registries.registry import registry_of
from batcher.core.registry_address import registry_address
from tests.end_to_end.processes import ROOT, Process, started, until, write_model

TOKEN, THREADS = "sesame-open", 4
ROW = np.ones((1, 4), "<f4")
MODEL = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


@pytest.fixture
def directory() -> Iterator[str]:
    """Run a directory, and return its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batcher.app.cli", "directory", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"BATCHER_DIRECTORY_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r"directory on http://(\S+)", process.stdout.readline())
    assert found
    yield f"directory://:{TOKEN}@{found[1]}/batcher"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


class Load:
    """Calls without a pause, on threads, until it ends."""

    def __init__(self, client: Client) -> None:
        self.client, self.failures, self.calls = client, list[Exception](), 0
        self._ends = Event()
        self._threads = [Thread(target=self._run) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                self.client.infer("m", {"x": ROW}, timeout=10)
            except ClientFailure as err:
                self.failures.append(err)
            self.calls += 1

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def listed(address: str) -> set[str]:
    registry = registry_of(registry_address(address))
    found = {each.address for each in registry.servers()}
    registry.close()
    return found


@pytest.mark.long
def test_servers_come_drain_and_die_and_only_what_died_with_one_is_lost(
    directory: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "models", "m", MODEL)
    settings = {
        "model_repository": str(tmp_path / "models"),
        "registry": directory,
        "registry_ttl_s": "2",
    }
    flags = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
    with ExitStack() as stack:
        servers: list[Process] = []

        def start() -> None:
            servers.append(stack.enter_context(started(tmp_path, *flags)))

        start()
        start()
        until(lambda: listed(directory) == {each.address for each in servers})
        load = Load(stack.enter_context(Client(directory, retries=5)))
        start()
        until(lambda: len(listed(directory)) == 3)
        servers[0].signal(signal.SIGTERM)
        until(lambda: servers[0].address not in listed(directory))
        assert servers[0].wait(20) == 0
        assert load.failures == []
        os.kill(servers[1].pid, signal.SIGKILL)
        until(lambda: listed(directory) == {servers[2].address})
        before = load.calls
        until(lambda: load.calls > before + 50)
        load.end()
        assert TOKEN not in servers[2].errors + "\n".join(servers[2].lines)
        # A call that the killed server had under way may have run, and is told as lost. While the
        # system takes the process apart, a thread can find its port still open once more.
        assert all(isinstance(each, AnswerLost) for each in load.failures)
        assert len(load.failures) <= 2 * THREADS
