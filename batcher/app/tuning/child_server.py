"""A server of its own process, as `batcher serve` runs it, for real load.

One server has the model several times, each with other settings. So all settings meet the same
machine at the same time, and whoever is not asked is idle. In a process of its own, since the
client's work must not take the interpreter lock from the server.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from batcher.config.reading import ENVIRONMENT_PREFIX, PLATFORM_VARIABLES
from batcher.errors import ModelLoadError

STOP_S = 20.0
"""Seconds within which the server must end; nothing is waited for, so it needs a fraction."""

SHOWN_LINES = 5
"""Last lines of the server's log that an error shows."""


class ChildServer:
    """A server that has loaded what it could.

    Attributes:
        address: `http://host:port`.
    """

    def __init__(self, address: str, pid: int, log: Path) -> None:
        """Know a server that listens."""
        self.address = address
        self._pid = pid
        self._log = log

    @property
    def loop_seconds(self) -> float:
        """Processor time of the thread of the event loop so far; 0 where that is not known."""
        # The main thread has the id of its process.
        file = Path(f"/proc/{self._pid}/task/{self._pid}/schedstat")
        with suppress(OSError, ValueError, IndexError):
            return int(file.read_text(encoding="ascii").split()[0]) / 1e9
        return 0.0

    def has(self, model: str) -> bool:
        """Return whether `model` is ready."""
        try:
            with urlopen(f"{self.address}/v2/models/{model}/ready", timeout=STOP_S) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def ready(self, models: Sequence[str]) -> list[str]:
        """Return those of `models` that are ready.

        Raises:
            ModelLoadError: the first one, which has the present settings, is not.
        """
        found = [model for model in models if self.has(model)]
        if models[0] not in found:
            raise ModelLoadError(f"the server cannot load the model: {_last_lines(self._log)}")
        return found


@contextmanager
def child_server(configuration: Mapping[str, Any]) -> Iterator[ChildServer]:
    """Run a server with `configuration` while the context is open.

    Raises:
        ModelLoadError: the server does not start.
    """
    with TemporaryDirectory(prefix="batcher-tune-") as folder:
        file, log = Path(folder, "config.yaml"), Path(folder, "log")
        # JSON is YAML.
        file.write_text(json.dumps({**configuration, "strict_start": False}), encoding="utf-8")
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "batcher.app.cli", "serve", "-c", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                text=True,
            )
        try:
            yield ChildServer(_address(process, log), process.pid, log)
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    """Return the environment without settings, which the configuration has already."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENVIRONMENT_PREFIX) and name not in PLATFORM_VARIABLES
    }


def _address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"(?:ready|listens) on (http://[^\s,]+)", line):
            return found[1]
    raise ModelLoadError(f"the server does not start: {_last_lines(log)}")


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-SHOWN_LINES:]) or "it says nothing"


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
