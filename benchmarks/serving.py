"""A server in a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "benchmarks" / "models"


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
    pairs = [f"model_repository={models}", *settings]
    arguments = [part for pair in pairs for part in ("--set", pair)]
    command = [sys.executable, str(script), "--host", "127.0.0.1", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        found = re.search(r"ready on (\S+)(?: and grpc://(\S+))?", process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not become ready")
        yield f"http://{found[2]}" if found[2] else found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
