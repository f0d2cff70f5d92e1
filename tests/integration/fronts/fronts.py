"""How each front-end of `examples/` is started, and the browser that clicks through it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from tests.end_to_end.processes import ROOT, until
from tests.end_to_end.programs import FOLDER, ended
from tests.integration.balancers import found_program, free_port

EXAMPLES = ROOT / "examples"
PYTHON = FOLDER / "fronts" / "bin" / "python"
PICTURE = EXAMPLES / "digits" / "3.png"
START_LIMIT_S = 120.0
"""Seconds for a start: Gradio and Streamlit import for seconds, on a busy machine for many."""


class Front(NamedTuple):
    """A front-end.

    Attributes:
        name: of its folder in `examples/`.
        command: that starts it, with `PORT` where the port belongs.
        button: that sends the picture; without, choosing a picture sends it.
        answer: what its page says of a 3, as a regular expression.
        folder: in which the command runs.
    """

    name: str
    command: Sequence[str]
    button: str = "Read"
    answer: str = "It is a 3"
    folder: Path = ROOT


UVICORN = ("-m", "uvicorn", "--port", "PORT", "--app-dir")
FRONTS = (
    Front("flask", ("-m", "flask", "--app", "examples/flask/app.py", "run", "--port", "PORT")),
    Front("django", (*UVICORN, "examples/django", "app:application")),
    Front("fastapi", (*UVICORN, "examples/fastapi", "app:app")),
    Front("gradio", ("examples/gradio/app.py",), "Submit", "^3$"),
    Front(
        "streamlit",
        ("-m", "streamlit", "run", "app.py", "--server.port", "PORT", "--server.headless", "true"),
        button="",
        folder=EXAMPLES / "streamlit",
    ),
    Front("node", ("examples/node/app.mjs",)),
)


@contextmanager
def running(front: Front, server: str, log: Path) -> Iterator[str]:
    """Run a front-end of the server at `server`, and yield the address of its page."""
    port = free_port()
    command = [*_program(front), *(word.replace("PORT", str(port)) for word in front.command)]
    variables = {"INFERENCE_URL": server, "PORT": str(port), "HOME": str(log.parent)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=front.folder,
            env=_environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(address, process, log), START_LIMIT_S)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def clicked(front: Front, address: str, text: str) -> Mapping[str, Any]:
    """Return what a browser sees that gives the page a 3 and waits for `text`."""
    browser = found_program("chromium", "chromium")
    script = Path(__file__).with_name("clicking.py")
    words = [PYTHON, script, address, browser, PICTURE, text, front.button]
    done = ended(words, {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _program(front: Front) -> Sequence[str]:
    if front.name == "node":
        return [found_program("node", "nodejs")]
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is not there: `make fronts` installs it")
    return [str(PYTHON)]


def _environment() -> dict[str, str]:
    """Return this process's variables, without those that lead Python elsewhere."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _answers(address: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")[-4000:]
    try:
        with urlopen(address, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
