"""The server's command as process 1 of a namespace, as in a container without an init."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import ROOT

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
PROGRAM = """
import os, signal, subprocess, sys, time
from batcher.app.first_process import leave_first_place
leave_first_place()
assert os.getpid() != 1
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
for _ in range(20):  # programs whose parents end before them
    subprocess.run(["sh", "-c", "sleep 0.1 & exit 0"], check=True)
done = subprocess.run(["sh", "-c", "sleep 0.3; exit 7"])
assert done.returncode == 7, done
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
signal.signal(signal.SIGHUP, lambda *_: print("hup", flush=True))
end = time.monotonic() + 10
while time.monotonic() < end:
    states = [open(f"/proc/{pid}/stat").read().rsplit(")")[1].split()[0]
              for pid in os.listdir("/proc") if pid.isdigit()]
    if "Z" not in states and len(states) == 2:
        break
print("ready" if "Z" not in states else states, flush=True)
signal.pause()
signal.pause()
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs namespaces of processes")
    command = [*NAMESPACE, sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def first_process_of(namespace: int) -> int:
    children = Path(f"/proc/{namespace}/task/{namespace}/children").read_text().split()
    return int(children[0])


def test_nothing_stays_a_zombie_signals_arrive_and_the_status_is_the_servers(
    program: subprocess.Popen[str],
) -> None:
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    first = first_process_of(program.pid)
    subprocess.run(["kill", "-HUP", str(first)], check=True)
    assert program.stdout.readline() == "hup\n"
    subprocess.run(["kill", "-TERM", str(first)], check=True)
    assert program.wait(20) == 5


def test_a_server_that_a_signal_kills_ends_as_shells_say(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    first = first_process_of(program.pid)
    server = first_process_of(first)
    subprocess.run(["kill", "-KILL", str(server)], check=True)
    assert program.wait(20) == 128 + signal.SIGKILL


def test_any_other_process_goes_on_as_it_is() -> None:
    code = (
        "import os; from batcher.app.first_process import leave_first_place; pid = os.getpid(); "
        "leave_first_place(); assert os.getpid() == pid"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
