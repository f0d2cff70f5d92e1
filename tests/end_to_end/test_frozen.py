"""A server that is frozen for longer than its limits, and goes on: no good work is lost."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.end_to_end.processes import one_answer, started, until, write_model
from tests.end_to_end.test_listening import ROW, predict

SLOW = """
import time
class Model:
    def predict(self, inputs):
        time.sleep(1.0)
        return {"y": inputs["x"] * 2}
"""
FROZEN_S = 4.0
"""Longer than each limit below by more than the model takes."""


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_what_runs_and_what_comes_while_it_is_frozen_is_answered(
    tmp_path: Path, worker: str
) -> None:
    write_model(tmp_path / "models", "slow", SLOW)
    (tmp_path / "config.yaml").write_text(
        "header_timeout_s: 2\nbody_timeout_s: 2\nidle_timeout_s: 2\nmin_body_rate: 1GiB\n"
        f"defaults: {{watchdog_s: 2, worker: {worker}, warmup: false, timeout_ms: 60000}}\n"
    )
    request = predict(ROW, model="slow")

    def answered(connection: socket.socket) -> int:
        return one_answer(connection).status

    with (
        started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server,
        ThreadPoolExecutor(3) as pool,
    ):
        runs, half, kept = server.connect(), server.connect(), server.connect()
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        assert answered(kept) == 200
        runs.sendall(request)
        half.sendall(request[:-2])
        until(lambda: server.metric("batcher_in_flight_rows") == 1)
        server.signal(signal.SIGSTOP)
        thaw = time.monotonic() + FROZEN_S
        kept.sendall(request)
        until(lambda: time.monotonic() > thaw)
        server.signal(signal.SIGCONT)
        half.sendall(request[-2:])
        answers = [pool.submit(answered, each) for each in (runs, half, kept)]
        assert [each.result(30) for each in answers] == [200, 200, 200]
        assert "hangs" not in server.errors
        for each in (runs, half, kept):
            each.close()
