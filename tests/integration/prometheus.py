"""A Prometheus as a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from tests.integration.balancers import found_program, free_port

Values = Callable[[str], list[float]]
"""The values that a query finds; none while Prometheus does not listen yet."""


@contextmanager
def prometheus(folder: Path, configuration: str) -> Iterator[Values]:
    """Run a Prometheus; its files lie in `folder`."""
    program, port = found_program("prometheus", "prometheus"), free_port()
    (folder / "prometheus.yml").write_text(configuration)
    command = [program, f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield lambda query: _found(port, query)
    finally:
        process.terminate()
        process.wait(20)


def _found(port: int, query: str) -> list[float]:
    try:
        address = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        with urlopen(address, timeout=10) as answer:
            return [float(each["value"][1]) for each in json.load(answer)["data"]["result"]]
    except OSError:
        return []
