"""Standard output and error that stand still, are closed, full or without a reader.

Whatever becomes of them, requests are answered, a reload is applied, and the server ends with 0.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.end_to_end.processes import ROOT, START_LIMIT_S, until, write_model

pytestmark = pytest.mark.long

TALKS = """
import os, subprocess, sys
class Model:
    def predict(self, inputs):
        many = int(inputs["x"][0, 0])
        line = "said by the model " + "x" * 1000 + "\\n"
        print(line * many, end="")
        print("to stderr", file=sys.stderr)
        os.write(1, (line * many).encode())
        subprocess.run(["printf", "by a program\\n"], check=True)
        return {"y": inputs["x"]}
"""
LINES_OF_A_REQUEST = 2000
TOO_MANY_LINES = 1 << 60
"""Lines that no text can hold: the model raises."""

FAILURES = 90
BOUND_BYTES = 16 << 20


class Server:
    """A server whose outputs are what the test makes of them."""

    def __init__(
        self, folder: Path, worker: str, outputs: str, fronts: int = 0, **popen: int
    ) -> None:
        write_model(folder / "models", "talks", TALKS)
        settings = f"port: 0\naccess_log: true\ndefaults: {{worker: {worker}, warmup: false}}\n"
        settings += f"fronts: {fronts}\n"
        (folder / "config.yaml").write_text(settings)
        program = f"exec {sys.executable} serve.py -c {folder}/config.yaml {outputs}"
        self.process = subprocess.Popen(["bash", "-c", program], cwd=ROOT, **popen)

    @property
    def address(self) -> str:
        """Where the server listens, asked of the system: its outputs may tell nobody."""
        inodes = set()
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
            except OSError:
                continue
            if found:
                inodes.add(found[1])
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                return f"http://127.0.0.1:{int(fields[1].rpartition(':')[2], 16)}"
        return ""

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None
            try:
                return bool(self.address) and self.get("/readyz") != ""
            except OSError:
                return False

        until(is_ready, START_LIMIT_S)

    def get(self, path: str) -> str:
        with urlopen(self.address + path, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def predict(self, lines: int) -> None:
        body = f'{{"inputs": {{"x": [[{lines}, 0, 0, 0]]}}}}'.encode()
        kind = {"Content-Type": "application/json"}
        with urlopen(Request(f"{self.address}/predict", body, kind), timeout=30) as answer:
            assert answer.status == 200

    def fail(self) -> None:
        with pytest.raises(HTTPError, match="500"):
            self.predict(TOO_MANY_LINES)

    def metric(self, pattern: str) -> float:
        found = re.findall(rf"^{pattern} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return sum(map(float, found))

    def reload(self) -> None:
        applied = r'batcher_reloads_total{outcome="applied"}'
        before = self.metric(applied)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.metric(applied) > before)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(
    folder: Path, worker: str, outputs: str, fronts: int = 0, **popen: int
) -> Iterator[Server]:
    server = Server(folder, worker, outputs, fronts, **popen)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_reader_that_pauses_stops_nothing_and_hears_what_it_has_missed(
    tmp_path: Path, worker: str
) -> None:
    log = tmp_path / "stderr"
    with serving(tmp_path, worker, f"2>{log}", stdout=subprocess.PIPE) as server:
        for _ in range(3 + BOUND_BYTES // (2 * LINES_OF_A_REQUEST * 1000)):
            server.predict(LINES_OF_A_REQUEST)
        server.reload()
        until(lambda: server.metric(r'batcher_dropped_lines_total{output="stdout"}') > 1000)
        assert server.process.stdout is not None
        os.set_blocking(server.process.stdout.fileno(), False)
        heard = bytearray()

        def has_heard_enough() -> bool:
            heard.extend(server.process.stdout.read() or b"")  # type: ignore[union-attr]
            return b"lines to standard output dropped" in log.read_bytes()

        until(has_heard_enough)
        assert b" is ready on " in heard
        server.predict(1)
        until(lambda: has_heard_enough() and heard.endswith(b"}\n"))
        assert heard.rsplit(b"\n", 3)[-2].startswith(b'{"time"'), "it goes on, line by line"
        assert server.stop() == 0


def test_a_reader_that_never_reads_delays_the_end_by_no_more_than_its_bound(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "thread", "", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        for _ in range(3):
            server.predict(LINES_OF_A_REQUEST)
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stderr is not None
        server.process.stdout.close()
        server.process.stderr.close()


@pytest.mark.parametrize(
    ("outputs", "counts"),
    [
        (">&- 2>&-", True),
        (">&- 2>&- <&-", True),
        (">/dev/full 2>/dev/full", True),
        ("> >(true) 2> >(true)", True),
        (">/dev/null 2>&1", False),
    ],
    ids=["closed", "all closed", "full", "readers ended", "thrown away"],
)
def test_outputs_that_take_nothing_change_nothing(
    tmp_path: Path, outputs: str, counts: bool
) -> None:
    with serving(tmp_path, "thread", outputs) as server:
        for _ in range(3):
            server.predict(1)
        server.reload()
        if counts:
            until(lambda: server.metric(r"batcher_dropped_lines_total{.*}") >= 3)
        assert server.stop() == 0


def test_lines_that_fronts_drop_are_counted_on_the_one_page_of_metrics(tmp_path: Path) -> None:
    dropped = r'batcher_dropped_lines_total{output="stderr"}'
    with serving(tmp_path, "thread", ">/dev/null 2>/dev/full", 2) as server:
        server.fail()
        until(lambda: server.metric(dropped) > 0)
        before = server.metric(dropped)
        # Fronts log each failure; the engine logs a traceback at most once in 10 s.
        for _ in range(FAILURES):
            server.fail()
        until(lambda: server.metric(dropped) >= before + FAILURES)
        assert server.stop() == 0


def test_lines_that_are_taken_all_arrive_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(tmp_path, "thread", f">{log} 2>&1") as server:
        for _ in range(5):
            server.predict(LINES_OF_A_REQUEST)
        assert server.metric(r"batcher_dropped_lines_total{.*}") == 0
        assert server.stop() == 0
    text = log.read_text()
    assert text.count("said by the model") == 5 * 2 * LINES_OF_A_REQUEST
    assert text.count("by a program") == text.count("to stderr") == 5
    assert text.count('"route":"/predict"') == 5


def test_a_pump_that_is_killed_is_replaced_and_nothing_notices(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def pumps(server: Server) -> Sequence[int]:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        return [
            int(pid)
            for pid in children.read_text().split()
            if b"pump.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    with serving(tmp_path, "thread", f">{log} 2>&1") as server:
        (first,) = pumps(server)
        os.kill(first, signal.SIGKILL)
        server.predict(1)
        until(lambda: len(pumps(server)) == 1 and pumps(server) != [first])
        server.predict(1)
        assert server.stop() == 0
    assert log.read_text().count("by a program") == 2
