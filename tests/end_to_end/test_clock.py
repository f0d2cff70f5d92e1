"""The system's clock is set while requests run: time is measured by another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.processes import one_answer, started, until, write_model

SLEEPER = """
import time
class Model:
    def predict(self, inputs):
        time.sleep(5)
        return {"y": inputs["x"]}
"""
PROGRAM = """
import sys, time
from pathlib import Path
seconds = time.time
time.time = lambda: seconds() + (float(flag.read_text()) if flag.exists() else 0.0)
flag = Path(sys.argv.pop(1))
from batcher.cli import main
main()
"""
"""A server whose clock a file sets, by so many seconds as stand in it."""

REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    b"X-Timeout-Ms: %d\r\nContent-Length: 16\r\n\r\n" + bytes(16)
)


@pytest.mark.parametrize(
    ("hours", "timeout", "status"), [(-1, 2000, 504), (1, 30_000, 200)], ids=["it passes", "it does not pass"]
)
def test_a_deadline_in_flight_passes_as_if_the_clock_had_not_been_set(
    tmp_path: Path, hours: int, timeout: int, status: int
) -> None:
    write_model(tmp_path / "models", "sleeper", SLEEPER)
    flag = tmp_path / "flag"
    settings = (f"model_repository={tmp_path / 'models'}", "defaults.warmup=false", "access_log=false")
    arguments = [part for pair in settings for part in ("--set", pair)]
    command = ("-c", PROGRAM, str(flag), "serve", "--port", "0")
    with started(tmp_path, *arguments, command=command) as server, server.connect() as connection:
        connection.sendall(REQUEST % timeout)
        until(lambda: server.metric("batcher_in_flight_rows") == 1)
        (tmp_path / "written").write_text(str(3600 * hours))
        (tmp_path / "written").rename(flag)
        assert one_answer(connection).status == status
        assert server.metric("batcher_in_flight_rows") == (status == 504), "what is late is answered while it runs"
