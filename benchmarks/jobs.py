"""What a batch job costs: its rate beside bare loops, its memory, and what other clients notice.

`rate`: rows/s of `batcher run` beside two loops in this process. The bare loop calls the same model
with one full batch again and again: nothing is read or written. The loop by hand is what people
write without us: it reads the same file batch by batch, calls the model and writes the answers, one
after the other. The job's rate is its own, from the loaded model to the end: reading, decoding,
writing and the journal are in it. Rounds of all three alternate; ratios are medians of the rounds'.

`memory`: resident memory of a job, its processes together, while it reads a generated input of many
gigabytes, above what it had when its first rows were written.

`online`: the p99 of requests at random (Poisson) times at a part of what the device can do, without
and with a job of the same model against the same server, in turn.

`mlserver`: rows/s of `batcher run --url` and of MLServer's own `mlserver infer`, one after the
other against the same server. The rows are the same; each command has them in its own form of JSON
lines. `make clients` installs MLServer.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import orjson

from batcher.config.model_file import ModelDefinition
from batcher.models.checked import CheckedModel
from benchmarks.bare import bare_rate, example_row, load
from benchmarks.job_files import write_lines, write_rows
from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, ROOT, running_server

BATCH = 64
COMMAND = [sys.executable, "-m", "batcher.app.cli", "run"]
RATE = re.compile(r"([\d,]+) rows/s")
FILES = [("mlp", "npz"), ("mlp", "jsonl"), ("fixed_cost", "npz"), ("fixed_cost", "jsonl")]
"""Models, each with a kind of file, input and output alike, that its job has."""

CAPACITY = 32 / (10e-3 + 0.3e-3 * 32)
"""Rows/s of the model `overload` in full batches."""

SHARE = 0.5
"""Share of the capacity that other clients ask for."""

MLSERVER = ROOT / ".clients" / "mlserver" / "bin" / "mlserver"
MLSERVER_SECONDS = re.compile(r"Time taken: ([\d.]+) seconds")
MLSERVER_WAYS = {
    "mlserver infer": (),
    "mlserver infer --binary-data": ("--binary-data",),
    "mlserver infer --binary-data --batch-size 64": ("--binary-data", "--batch-size", "64"),
}


def main() -> None:
    """Measure one of the four, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"rate": rate, "memory": memory, "online": online, "mlserver": mlserver}
    parser.add_argument("what", choices=parts)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement, about")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of the input of `memory`")
    parser.add_argument("--rows", type=int, default=1 << 15, help="of the input of `mlserver`")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        status = parts[options.what](Path(folder), options)
    sys.exit(status)


class Rates(NamedTuple):
    """Rows/s of a round."""

    bare: float
    by_hand: float
    job: float


def rate(folder: Path, options: argparse.Namespace) -> int:
    """Measure jobs beside loops."""
    rows: list[dict[str, Any]] = []
    for name, kind in FILES:
        definition, checked = load(MODELS / name, BATCH)
        row, tensor = example_row(definition), definition.spec.inputs[0]
        source, output = folder / f"in.{kind}", folder / f"out.{kind}"
        # As many rows as the loop by hand answers in the time: it is slower than the bare loop.
        write_rows(source, tensor, 64 * BATCH)
        by_hand = hand_rate(checked, definition, source, output)
        write_rows(source, tensor, round(by_hand * options.seconds))
        found = []
        for _ in range(options.rounds):
            bare = bare_rate(checked, row, BATCH, options.seconds)
            by_hand = hand_rate(checked, definition, source, output)
            found.append(Rates(bare, by_hand, job_rate(name, source, output)))
        rows.append(rate_row(name, kind, found))
        print(rows[-1], file=sys.stderr)
    title = "Rows/s of batch jobs beside the model in loops, batches of 64"
    remarks = [
        "Bare: the model called with one batch again and again; nothing is read or written.",
        "By hand: one thread reads the file, calls the model and writes the answers.",
        "Ratios are medians over the rounds of the ratio within a round.",
    ]
    print(write_results("jobs_rate", title, rows, remarks))
    return 0


def rate_row(name: str, kind: str, found: list[Rates]) -> dict[str, Any]:
    """Return a row of the table, from the rates of each round."""
    return {
        "model": name,
        "files": kind,
        "bare rows/s": median(each.bare for each in found),
        "by hand rows/s": median(each.by_hand for each in found),
        "job rows/s": median(each.job for each in found),
        "job / bare": round(median(each.job / each.bare for each in found), 3),
        "job / by hand": round(median(each.job / each.by_hand for each in found), 3),
    }


def hand_rate(
    checked: CheckedModel, definition: ModelDefinition, source: Path, output: Path
) -> float:
    """Return the rows/s of a loop that reads `source`, calls the model and writes `output`."""
    name, result = definition.spec.inputs[0].name, definition.spec.outputs[0].name
    by_hand = _arrays_by_hand if source.suffix == ".npz" else _lines_by_hand

    def predict(rows: np.ndarray) -> np.ndarray:
        return checked.model.predict({name: rows})[result]

    began = time.perf_counter()
    count = by_hand(source, output, predict, name, result)
    return count / (time.perf_counter() - began)


def _arrays_by_hand(
    source: Path,
    output: Path,
    predict: Callable[[np.ndarray], np.ndarray],
    name: str,
    result: str,
) -> int:
    with np.load(source) as archive:
        rows = archive[name]
    answers = [predict(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
    np.savez(output, **{result: np.concatenate(answers)})
    return len(rows)


def _lines_by_hand(
    source: Path,
    output: Path,
    predict: Callable[[np.ndarray], np.ndarray],
    name: str,
    result: str,
) -> int:
    count = 0
    with source.open("rb") as lines, output.open("wb") as file:
        while block := list(islice(lines, BATCH)):
            rows = np.array([orjson.loads(line) for line in block], np.float32)
            answers = predict(rows).tolist()
            file.writelines([orjson.dumps({result: row}) + b"\n" for row in answers])
            count += len(block)
    return count


def job(name: str, source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """Start a job, which begins anew."""
    command = [*COMMAND, name, str(source), str(output), "--restart", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def job_rate(name: str, source: Path, output: Path, *more: str) -> float:
    """Return the rows/s that a job says at its end."""
    model = name if more else str(MODELS / name)
    text, _ = job(model, source, output, *more).communicate()
    found = RATE.search(text)
    assert found, text
    return float(found[1].replace(",", ""))


def memory(folder: Path, options: argparse.Namespace) -> int:
    """Measure the resident memory of jobs with a large input."""
    tensor = load(MODELS / "mlp", 1)[0].spec.inputs[0]
    rows = []
    for kind in ("npz", "jsonl"):
        source, output = folder / f"in.{kind}", folder / f"out.{kind}"
        write_rows(source, tensor, 4096)
        count = round(options.gigabytes * 1e9 / source.stat().st_size * 4096)
        write_rows(source, tensor, count)
        start, most = watched(job(str(MODELS / "mlp"), source, output), output)
        rows.append(
            {
                "files": kind,
                "input GB": round(source.stat().st_size / 1e9, 2),
                "rows": count,
                "MB at the start": round(start / 1e6),
                "MB at most above the start": round((most - start) / 1e6),
            }
        )
        print(rows[-1], file=sys.stderr)
        source.unlink()
    title = "Resident memory of batch jobs with a large input, rows of 784 numbers"
    remarks = ["The start is when the first rows were written, after the model was loaded."]
    print(write_results("jobs_memory", title, rows, remarks))
    return 0


def watched(process: subprocess.Popen[str], output: Path) -> tuple[int, int]:
    """Return the resident bytes of a job at its start, and at most from then on to its end."""
    start = most = 0
    while process.poll() is None:
        if has_begun(output):
            now = sum(resident(pid) for pid in (process.pid, *children(process.pid)))
            start = start or now
            most = max(most, now)
        time.sleep(0.2)
    assert process.returncode == 0, process.returncode
    return start, most


def has_begun(output: Path) -> bool:
    """Return whether a job has written rows of `output`."""
    part = output.with_name(f"{output.name}.part")
    return part.exists() and part.stat().st_size > 0


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, such as the one that reads text."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for tasks in found for child in _text(tasks).split()]


def _text(path: Path) -> str:
    """Return a file of a process; nothing if the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds; 0 if it has ended."""
    text = _text(Path(f"/proc/{pid}/status"))
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def online(folder: Path, options: argparse.Namespace) -> int:
    """Measure the p99 of other clients without and with a job."""
    source = folder / "in.jsonl"
    definition = load(MODELS / "overload", 1)[0]
    tensor = definition.spec.inputs[0]
    write_rows(source, tensor, round(CAPACITY * 4 * options.seconds))
    pairs: list[tuple[LoadResult, LoadResult]] = []
    with running_server(MODELS, "models.overload.max_batch_size=32") as address:
        asked = LoadOptions(
            url=f"{address}/models/overload/predict",
            body=example_row(definition)[tensor.name].tobytes(),
            headers=(("Content-Type", "application/octet-stream"),),
            rate=CAPACITY * SHARE,
            duration=options.seconds,
            warmup=2.0,
            connections=256,
        )
        for number in range(options.rounds):
            output = folder / f"{number}.jsonl"
            without = run_load(asked)
            process = job("overload", source, output, "--url", address)
            # A command that starts takes a core for seconds; that is no matter of the server's.
            while not has_begun(output):
                assert process.poll() is None, "the job has ended"
                time.sleep(0.1)
            pairs.append((without, run_load(asked)))
            assert process.poll() is None, "the job has ended"
            process.send_signal(signal.SIGTERM)
            process.communicate()
    valid = [(one, other) for one, other in pairs if one.valid and other.valid]
    if valid:
        write_online(valid)
    return report_invalid([each for pair in pairs for each in pair])


def write_online(pairs: list[tuple[LoadResult, LoadResult]]) -> None:
    """Write what other clients noticed in valid rounds."""
    without, beside = ([pair[at].latency_ms["p99"] for pair in pairs] for at in (0, 1))
    ratios = [other / one for one, other in zip(without, beside, strict=True)]
    row = {
        "load": f"{SHARE:.0%} of capacity",
        "rounds": len(pairs),
        "p99 ms without a job": median(without),
        "p99 ms with a job": median(beside),
        "ratio": round(median(ratios), 3),
        "ratios": ", ".join(f"{each:.3f}" for each in sorted(ratios)),
    }
    title = "The p99 of requests beside a batch job of the same model, `batcher run --url`"
    print(write_results("jobs_online", title, [row], ["Medians over the valid rounds."]))


def mlserver(folder: Path, options: argparse.Namespace) -> int:
    """Measure `batcher run --url` beside MLServer's `infer`, against one server."""
    if not MLSERVER.exists():
        sys.exit(f"{MLSERVER} is not there: `make clients` installs it")
    rows = []
    with running_server() as address:
        for name in ("fixed_cost", "mlp"):
            tensor = load(MODELS / name, 1)[0].spec.inputs[0]
            source, requests = folder / "rows.jsonl", folder / "requests.jsonl"
            write_rows(source, tensor, options.rows)
            # It takes ten times as long, so it gets fewer of the same rows.
            write_lines(requests, tensor, options.rows // 4, partial(request, tensor))
            output = folder / f"{name}.jsonl"
            own = [job_rate(name, source, output, "--url", address) for _ in range(options.rounds)]
            rows.append(mlserver_row(name, "batcher run --url", own, median(own)))
            for title, more in MLSERVER_WAYS.items():
                theirs = mlserver_rate(name, address, requests, more)
                rows.append(mlserver_row(name, title, [theirs], median(own)))
                print(rows[-1], file=sys.stderr)
    title = f"Rows/s of commands with files of {options.rows:,} rows, against one server"
    remarks = [
        "Rows/s by each command's own clock, which begins before the first row is read and ends "
        "when the last answer is written. The start of Python is in none of them.",
        "`mlserver infer` by itself sends a request a row in JSON, on 10 connections. It has the "
        "first quarter of the rows.",
    ]
    print(write_results("jobs_mlserver", title, rows, remarks))
    return 0


def request(tensor: Any, row: list[float], number: int) -> str:
    """Return a row as a line for MLServer."""
    shape = [1, *tensor.shape]
    one = {"name": tensor.name, "shape": shape, "datatype": tensor.datatype.name, "data": row}
    return json.dumps({"id": str(number), "inputs": [one]}, separators=(",", ":"))


def mlserver_row(model: str, command: str, found: list[float], own: float) -> dict[str, Any]:
    """Return a row of the table; `own` is the rate of `batcher run`."""
    rate = median(found)
    return {"model": model, "command": command, "rows/s": rate, "ratio": round(own / rate, 2)}


def mlserver_rate(name: str, address: str, requests: Path, more: tuple[str, ...]) -> float:
    """Return the rows/s of MLServer's command, all of whose rows have an answer."""
    answers = requests.with_name("answers.jsonl")
    place = address.removeprefix("http://")
    command = [MLSERVER, "infer", "-u", place, "-m", name, "-i", requests, "-o", answers, *more]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    found = MLSERVER_SECONDS.search(done.stdout + done.stderr)
    assert found, done.stderr
    lines = answers.read_text().splitlines()
    assert not any('"error"' in line for line in lines), lines[0]
    return len(lines) / float(found[1])


if __name__ == "__main__":
    main()
