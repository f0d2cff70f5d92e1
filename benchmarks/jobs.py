"""What a batch job costs: its rate beside a bare loop, its memory, and what other clients notice.

`rate`: rows/s of `batcher run` beside the same model called in a bare loop with full batches, in
this process. The job's rate is its own, from the loaded model to the end: reading, decoding,
writing and the journal are in it. Rounds of both alternate; the ratios are medians of the rounds'.

`memory`: resident memory of a job while it reads a generated input of many gigabytes, above what it
had when its first rows were written.

`online`: the p99 of requests at random (Poisson) times at a part of what the device can do, without
and with `batcher run --url` against the same server, in turn.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.bare import bare_rate, example_row, load
from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server

BATCH = 64
COMMAND = [sys.executable, "-m", "batcher.app.cli", "run"]
RATE = re.compile(r"([\d,]+) rows/s")
FILES = {"fixed_cost": ("npz", "jsonl"), "mlp": ("npz",)}
"""Model to the kinds of files, input and output alike, that its job has."""

CAPACITY = 32 / (10e-3 + 0.3e-3 * 32)
"""Rows/s of the model `overload` in full batches."""


def main() -> None:
    """Measure one of the three, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["rate", "memory", "online"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, about")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of the input of `memory`")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        measure = {"rate": rate, "memory": memory, "online": online}[options.what]
        status = measure(Path(folder), options)
    sys.exit(status)


def rate(folder: Path, options: argparse.Namespace) -> int:
    """Measure jobs beside bare loops."""
    rows: list[dict[str, Any]] = []
    for name, kinds in FILES.items():
        definition, checked = load(MODELS / name, BATCH)
        row = example_row(definition)
        for kind in kinds:
            bare = bare_rate(checked, row, BATCH, options.seconds)
            source = folder / f"{name}.{kind}"
            write_rows(source, definition.spec.inputs[0], round(bare * options.seconds))
            found = []
            for number in range(options.rounds):
                bare = bare_rate(checked, row, BATCH, options.seconds)
                found.append((bare, job_rate(name, source, folder / f"{name}-{number}.{kind}")))
            rows.append(rate_row(name, kind, found))
            print(rows[-1], file=sys.stderr)
    title = "Rows/s of batch jobs beside the model in a bare loop, batches of 64"
    remarks = ["Ratios are medians over the rounds of the ratio within a round."]
    print(write_results("jobs_rate", title, rows, remarks))
    return 0


def rate_row(name: str, kind: str, found: list[tuple[float, float]]) -> dict[str, Any]:
    """Return a row of the table; `found` has rates of bare loop and job for each round."""
    return {
        "model": name,
        "files": kind,
        "bare rows/s": median(bare for bare, _ in found),
        "job rows/s": median(job for _, job in found),
        "ratio": round(median(job / bare for bare, job in found), 3),
    }


def write_rows(path: Path, tensor: Any, count: int) -> None:
    """Write `count` rows of random numbers for `tensor`."""
    random = np.random.default_rng(1)
    if path.suffix == ".npz":
        array = random.random((count, *tensor.shape), np.float32)
        np.savez(path, **{tensor.name: array.astype(tensor.datatype.numpy)})
        return
    block = random.random((BATCH, *tensor.shape), np.float32).round(3).astype(float).tolist()
    lines = [json.dumps(row, separators=(",", ":")) for row in block]
    with path.open("w") as file:
        for row in range(count):
            file.write(lines[row % BATCH] + "\n")


def job(name: str, source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """Start a job."""
    command = [*COMMAND, name, str(source), str(output), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def job_rate(name: str, source: Path, output: Path) -> float:
    """Return the rows/s that a job says at its end."""
    text, _ = job(str(MODELS / name), source, output).communicate()
    found = RATE.search(text)
    assert found, text
    return float(found[1].replace(",", ""))


def memory(folder: Path, options: argparse.Namespace) -> int:
    """Measure the resident memory of a job with a large input."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    line = json.dumps([0.5] * 784, separators=(",", ":")) + "\n"
    block = line * 4096
    count = round(options.gigabytes * 1e9 / len(block))
    with source.open("w") as file:
        for _ in range(count):
            file.write(block)
    began = time.monotonic()
    process = job(str(MODELS / "mlp"), source, output)
    start, most = watched(process, output)
    row = {
        "input GB": round(source.stat().st_size / 1e9, 2),
        "rows": count * 4096,
        "seconds": round(time.monotonic() - began),
        "MB at the start": round(start / 1e6),
        "MB at most above the start": round((most - start) / 1e6),
    }
    title = "Resident memory of a batch job with a large input, JSON lines of 784 numbers"
    remarks = ["The start is when the first rows were written, after the model was loaded."]
    print(write_results("jobs_memory", title, [row], remarks))
    return 0


def watched(process: subprocess.Popen[str], output: Path) -> tuple[int, int]:
    """Return the resident bytes of a job at its start, and at most from then on to its end."""
    part = output.with_name(f"{output.name}.part")
    start = most = 0
    while process.poll() is None:
        if part.exists() and part.stat().st_size:
            now = resident(process.pid)
            start = start or now
            most = max(most, now)
        time.sleep(0.2)
    assert process.returncode == 0, process.returncode
    return start, most


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def online(folder: Path, options: argparse.Namespace) -> int:
    """Measure the p99 of other clients without and with a job."""
    source = folder / "in.jsonl"
    tensor = load(MODELS / "overload", 1)[0].spec.inputs[0]
    write_rows(source, tensor, round(CAPACITY * 4 * options.seconds))
    results: dict[str, list[LoadResult]] = {"without": [], "with": []}
    share = 0.5
    with running_server(MODELS, "models.overload.max_batch_size=32") as address:
        body = example_row(load(MODELS / "overload", 1)[0])[tensor.name].tobytes()
        asked = LoadOptions(
            url=f"{address}/models/overload/predict",
            body=body,
            headers=(("Content-Type", "application/octet-stream"),),
            rate=CAPACITY * share,
            duration=options.seconds,
            warmup=2.0,
            connections=256,
        )
        for number in range(options.rounds):
            results["without"].append(run_load(asked))
            process = job("overload", source, folder / f"{number}.jsonl", "--url", address)
            results["with"].append(run_load(asked))
            process.send_signal(signal.SIGTERM)
            process.communicate()
    pairs = zip(results["without"], results["with"], strict=True)
    valid = [(one, other) for one, other in pairs if one.valid and other.valid]
    if valid:
        write_online(share, valid)
    return report_invalid([each for found in results.values() for each in found])


def write_online(share: float, pairs: list[tuple[LoadResult, LoadResult]]) -> None:
    """Write what other clients noticed in valid rounds."""
    row = {
        "load": f"{share:.0%} of capacity",
        "p99 ms without a job": median(one.latency_ms["p99"] for one, _ in pairs),
        "p99 ms with a job": median(other.latency_ms["p99"] for _, other in pairs),
        "ratio": round(
            median(other.latency_ms["p99"] / one.latency_ms["p99"] for one, other in pairs), 3
        ),
    }
    title = "The p99 of requests beside a batch job of the same model"
    print(write_results("jobs_online", title, [row], ["Medians over the valid rounds."]))


if __name__ == "__main__":
    main()
