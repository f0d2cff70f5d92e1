"""Models that come and go for a long time: what they took is given back, whatever they did."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.end_to_end.processes import Process, started, until, write_model
from tests.end_to_end.test_loading import ask

ROUNDS = int(os.environ.get("LIVES_ROUNDS", "30"))
"""Rounds of two changes of models each: a leak of one file or thread at each shows in the counts.

`make integration` has a hundred.
"""

PROCESS_ROUNDS = 3
"""Loads of a model in a process; each takes seconds, and a leak of a process shows at once."""

SETTLED = 20
"""Rounds after which the allocator and the caches of the libraries have what they keep."""

COMES_AND_GOES = 4
"""Threads of pools and connections that may be there or not; ROUNDS changes would leave more."""

SLACK = 48 << 20
"""Bytes that the allocator may keep besides; each load of WEIGHTS takes 4 MiB."""

WEIGHTS = """
import tempfile
import numpy as np

class Model:
    def load(self, device):
        self.weights = np.ones(1 << 19)
    def preprocess(self, inputs):
        return inputs
    def predict(self, inputs):
        return {"y": inputs["x"] * %d}
"""
MODULE = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
    def forward(self, x):
        return self.layer(x) * 0 + x * %d
"""
SOURCES = {"weights": WEIGHTS, "module": MODULE}


class Held:
    """What a server holds.

    Attributes:
        memory: resident bytes.
        counts: numbers of open files, threads, children, and temporary files.
    """

    def __init__(self, server: Process, temporary: Path) -> None:
        process = Path(f"/proc/{server.pid}")
        self.memory = server.resident()
        children = (process / f"task/{server.pid}/children").read_text().split()
        self.counts = {
            "files": len(os.listdir(process / "fd")),
            "threads": len(os.listdir(process / "task")),
            "children": len(children),
            "temporary": len(os.listdir(temporary)),
        }

    def is_no_more_than(self, settled: Held) -> bool:
        """Return whether no more is held than at `settled`, but for what comes and goes."""
        return all(
            count <= settled.counts[name] + COMES_AND_GOES for name, count in self.counts.items()
        )


def has_children(server: Process) -> bool:
    """Return whether memory of a child is still open in the server."""
    for file in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            if "batcher-slot" in os.readlink(file):
                return True
    return False


class Lives:
    """A server whose models a client, and SIGHUP, change again and again."""

    def __init__(self, server: Process, repository: Path) -> None:
        self.server = server
        self.repository = repository

    def control(self, name: str, what: str) -> int:
        """Have a model loaded or unloaded; return the status of the answer."""
        path = f"{self.server.address}/v2/repository/models/{name}/{what}"
        try:
            with urlopen(Request(path, b"{}", {"Content-Type": "application/json"})) as answer:
                return int(answer.status)
        except HTTPError as err:
            return err.code

    def reload(self) -> None:
        """Send SIGHUP, and wait until the reload has ended."""
        before = self.server.metric("batcher_reloads_total")
        self.server.signal(signal.SIGHUP)
        until(lambda: self.server.metric("batcher_reloads_total") > before)

    def change(self, number: int) -> None:
        """Replace a model; each tenth time break, mend, unload and load it as well."""
        name = ("weights", "module")[number % 2]
        source = self.repository / name / "1/code.py"
        source.write_text(SOURCES[name] % number)
        self.reload()
        assert ask(self.server, name) == number
        if number % 10 < 2:
            source.write_text("raise ValueError('broken')")
            assert self.control(name, "load") == 503
            self.reload()
            source.write_text(SOURCES[name] % number)
            for what in ("load", "unload", "load"):
                assert self.control(name, what) == 200
            assert ask(self.server, name) == number


@pytest.mark.long
def test_what_models_took_is_given_back_when_they_have_gone(tmp_path: Path) -> None:
    repository, temporary = tmp_path / "models", tmp_path / "temporary"
    temporary.mkdir()
    for name, source in SOURCES.items():
        write_model(repository, name, source % 1)
    config = tmp_path / "config.yaml"
    config.write_text("model_control: explicit\n")
    environment = {"TMPDIR": str(temporary)}
    with started(tmp_path, "--config", str(config), environment=environment) as server:
        lives = Lives(server, repository)
        for number in range(SETTLED):
            lives.change(number)
        settled = Held(server, temporary)
        for number in range(SETTLED, SETTLED + ROUNDS):
            lives.change(number)
        until(lambda: Held(server, temporary).is_no_more_than(settled))
        assert Held(server, temporary).memory < settled.memory + SLACK


def test_a_model_in_a_process_takes_all_with_it_when_it_goes(tmp_path: Path) -> None:
    repository, temporary = tmp_path / "models", tmp_path / "temporary"
    temporary.mkdir()
    write_model(repository, "weights", WEIGHTS % 1)
    config = tmp_path / "config.yaml"
    config.write_text("model_control: explicit\ndefaults: {worker: process}\n")
    environment = {"TMPDIR": str(temporary)}
    with started(tmp_path, "--config", str(config), environment=environment) as server:
        lives = Lives(server, repository)
        assert ask(server, "weights") == 1  # the thread for hooks stays
        assert lives.control("weights", "unload") == 200
        until(lambda: not has_children(server))
        alone = Held(server, temporary)
        for _ in range(PROCESS_ROUNDS):
            assert lives.control("weights", "load") == 200
            assert ask(server, "weights") == 1
            assert lives.control("weights", "unload") == 200
        until(lambda: not has_children(server))
        until(lambda: Held(server, temporary).is_no_more_than(alone))
        assert Held(server, temporary).memory < alone.memory + SLACK
