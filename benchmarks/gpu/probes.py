"""What is read from outside of a server: its metrics, its processor time, its memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

ANSWER_S = 60.0
"""Seconds after which an answer counts as never coming."""

MIB = 2**20


class Answer(NamedTuple):
    """What a server said."""

    status: int
    body: bytes


def ask(url: str, body: bytes | None = None) -> Answer:
    """Send one request, with octets as its body, and return the answer, whatever its status."""
    request = Request(url, body, {"Content-Type": "application/octet-stream"} if body else {})
    try:
        with urlopen(request, timeout=ANSWER_S) as answer:
            return Answer(answer.status, answer.read())
    except HTTPError as err:
        with err:
            return Answer(err.code, err.read())


def metric(address: str, name: str, model: str, **labels: str) -> float:
    """Return the sum of the samples `name` of a model with these labels in the server's metrics."""
    labels["model"] = model
    text = ask(f"{address}/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Batches(NamedTuple):
    """Batches of a model since its server began."""

    count: float
    rows: float

    @classmethod
    def read(cls, address: str, model: str) -> Batches:
        """Return what the server's metrics say."""
        count, rows = (
            metric(address, f"batcher_batch_size_{which}", model) for which in ("count", "sum")
        )
        return cls(count, rows)

    def mean_since(self, earlier: Batches) -> float:
        """Return the mean rows of the batches since `earlier`."""
        return (self.rows - earlier.rows) / max(self.count - earlier.count, 1)


def processor_seconds(pid: int) -> float:
    """Return the processor seconds of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def device_mib() -> float | None:
    """Return the memory in MiB that all processes hold of the first GPU; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@cache
def driver() -> str:
    """Return the version of NVIDIA's driver; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
