"""A server in a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "benchmarks" / "models"


class Running(NamedTuple):
    """A server that is ready.

    Attributes:
        pid: id of its process.
        http: `http://host:port`.
        grpc: `host:port` of its gRPC port; None without one.
        zeromq: address of its ZeroMQ socket; None without one.
    """

    pid: int
    http: str
    grpc: str | None
    zeromq: str | None = None


class Served(NamedTuple):
    """A server that is ready.

    Attributes:
        url: answers for the model.
        process: the server's process, if the server is ours.
    """

    url: str
    process: Running | None


@contextmanager
def running_server(
    models: Path = MODELS, *settings: str, script: Path = ROOT / "serve.py"
) -> Iterator[str]:
    """Start a server on a free port of 127.0.0.1, give its address once it is ready, and stop it.

    With a `grpc_port` among the settings, the address is that of gRPC, for HTTP/2 clients.

    Args:
        models: the model repository.
        settings: `KEY=VALUE`, each as for `--set`.
        script: what is run; takes the arguments of `serve.py`.
    """
    with server_process(models, *settings, script=script) as server:
        yield f"http://{server.grpc}" if server.grpc else server.http


@contextmanager
def server_process(
    models: Path = MODELS,
    *settings: str,
    script: Path = ROOT / "serve.py",
    log: Path = Path(os.devnull),
) -> Iterator[Running]:
    """Do what `running_server` does, and give the id of the process and every address.

    The server's log goes to the file `log`.
    """
    pairs = [f"model_repository={models}", *settings]
    arguments = [part for pair in pairs for part in ("--set", pair)]
    command = [sys.executable, str(script), "--host", "127.0.0.1", "--port", "0", *arguments]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
    try:
        assert process.stdout is not None
        ready = r"ready on (\S+)(?: and grpc://(\S+))?(?: and ((?:tcp|ipc)://\S+))?"
        found = re.search(ready, process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not become ready")
        yield Running(process.pid, *found.groups())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
