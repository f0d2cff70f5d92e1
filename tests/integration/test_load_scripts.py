"""The scripts of `examples/load/` against the digits: they end well, and all answers are right.

How fast the server is does not matter here: each script sends little.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.processes import ROOT, Process, started
from tests.end_to_end.programs import FOLDER, RUN_LIMIT_S

SCRIPTS = ROOT / "examples" / "load"
REQUESTS = 500
PROGRAMS = os.pathsep.join(
    (os.environ["PATH"], str(FOLDER / "tools" / "bin"), str(FOLDER / "perf_analyzer"))
)
ANY_MS = "P99_MS=60000"
"""No limit of latency: a busy machine is no fault of the script."""

ROUTE = "/models/digits/predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("server")
    with started(folder, "--set", "defaults.torch_threads=1") as process:
        yield process


def output(program: str, source: str, *command: str | Path, **variables: str) -> str:
    """Run a script, which must end with 0, and return what the script writes.

    Args:
        program: that the script needs; without it the test is skipped.
        source: what installs the program.
        command: the script with its arguments.
        variables: of its environment.
    """
    if shutil.which(program, path=PROGRAMS) is None:
        pytest.skip(f"{program} is not installed: {source}")
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": PROGRAMS} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def answered(server: Process, code: int = 200) -> float:
    """Return how many predictions of the digits ended with `code` since the server started."""
    pattern = rf'^batcher_requests_total{{(?=.*digits)(?=.*code="{code}").*}} (\S+)$'
    return sum(map(float, re.findall(pattern, server.get("/metrics"), re.MULTILINE)))


def test_the_digit_that_the_scripts_send_is_the_picture_of_a_3() -> None:
    from PIL import Image

    picture = np.asarray(Image.open(ROOT / "examples" / "digits" / "3.png").convert("L"))
    sent = np.frombuffer((SCRIPTS / "digit.bin").read_bytes(), "<f4")
    np.testing.assert_array_equal(sent, picture.ravel().astype("<f4") / 255)


def test_ab(server: Process) -> None:
    before = answered(server)
    url = server.address + ROUTE
    text = output(
        "ab", "apt-get install apache2-utils", SCRIPTS / "ab.sh", url, REQUESTS=str(REQUESTS)
    )
    assert re.search(r"Failed requests: +0\n", text), text
    assert "Non-2xx" not in text
    assert answered(server) - before == REQUESTS


def test_hey(server: Process) -> None:
    before = answered(server)
    url = server.address + ROUTE
    text = output("hey", "apt-get install hey", SCRIPTS / "hey.sh", url, REQUESTS=str(REQUESTS))
    each = REQUESTS // 64  # hey sends as many requests on each connection
    assert re.findall(r"\[(\d+)\]\t(\d+) responses", text) == [("200", str(each * 64))], text
    assert answered(server) - before == each * 64


def test_wrk(server: Process) -> None:
    before = answered(server)
    text = output("wrk", "apt-get install wrk", SCRIPTS / "wrk.sh", server.address + ROUTE, FOR="1")
    assert "Non-2xx" not in text
    assert "Socket errors" not in text
    assert answered(server) > before


def test_k6(server: Process) -> None:
    before = answered(server)
    script = ("k6", "run", "--quiet", "-e", f"URL={server.address}", "-e", "RATE=50", "-e", ANY_MS)
    text = output("k6", "make tools", *script, "-e", "DURATION=2s", SCRIPTS / "k6.js")
    assert re.search(r"checks_succeeded\S*: 100.00%", text), text
    assert answered(server) > before


def test_locust(server: Process) -> None:
    before = answered(server)
    users = ("--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "2s")
    script = ("locust", "-f", SCRIPTS / "locustfile.py", "--host", server.address, *users)
    text = output("locust", "make tools", *script)
    assert re.search(r"Aggregated +\d+ +0\(0.00%\)", text), text
    assert answered(server) > before


def test_perf_analyzer(server: Process) -> None:
    before = answered(server)
    address = server.address.removeprefix("http://")
    library = {"LD_LIBRARY_PATH": str(FOLDER / "perf_analyzer")}
    script = (SCRIPTS / "perf_analyzer.sh", address)
    text = output(
        "perf_analyzer", "make tools", *script, CONCURRENCY="4", STABILITY="999", **library
    )
    assert "Concurrency: 4, throughput:" in text
    assert answered(server) > before


def test_a_script_fails_where_the_model_is_missing(server: Process) -> None:
    url = f"URL={server.address}/nowhere"
    script = ("k6", "run", "--quiet", "-e", url, "-e", "RATE=20", "-e", "DURATION=1s")
    with pytest.raises(AssertionError, match="thresholds"):
        output("k6", "make tools", *script, SCRIPTS / "k6.js")
