"""A model that changes the working directory: reloads and crashed children go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.end_to_end.processes import one_answer, started, until, write_model
from tests.end_to_end.test_listening import ROW, predict

CHANGES = """
import os
class Model:
    def load(self, device):
        os.chdir("/")
    def predict(self, inputs):
        os.chdir("/")
        return {"y": inputs["x"]}
"""
CRASHES = """
import os
class Model:
    def predict(self, inputs):
        if inputs["x"][0, 0] == 9:
            os._exit(3)
        return {"y": inputs["x"] * 2}
"""


@pytest.mark.long
def test_children_start_again_and_a_reload_finds_every_file(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "changes", CHANGES)
    write_model(tmp_path / "models", "crashes", CRASHES)
    (tmp_path / "config.yaml").write_text(
        "defaults: {warmup: false}\nmodels: {crashes: {worker: process}}\n"
    )
    relative = os.path.relpath(tmp_path / "config.yaml", Path(__file__).parents[2])
    with started(tmp_path, "-c", relative) as server:

        def status(body: bytes, model: str = "crashes") -> int:
            with server.connect() as connection:
                connection.sendall(predict(body, model=model))
                return one_answer(connection).status

        # What a load changes is put back; what a model changes later is not.
        assert os.readlink(f"/proc/{server.pid}/cwd") == str(Path(__file__).parents[2])
        assert status(ROW, "changes") == 200
        assert os.readlink(f"/proc/{server.pid}/cwd") == "/"
        for _ in range(2):  # the first crash finds a child that was started ahead
            assert status(b"\0\0\x10\x41" * 4) == 503
            until(lambda: status(ROW) == 200, 60)
        code = tmp_path / "models" / "changes" / "1" / "code.py"
        code.write_text(code.read_text() + "# another version of it\n")
        server.signal(signal.SIGHUP)
        until(lambda: server.metric("batcher_reloads_total") > 0, 60)
        assert "model changes/1 replaced" in server.errors
