"""What a GPU must show, one part after the other; `run.sh` makes a bare machine ready for it.

    part        | what it tells
    ------------|--------------------------------------------------------------------------
    cuda_tests  | whether the tests with the mark `cuda` pass
    http        | rows/s over HTTP beside bare loops; half load, overload, processor time
    faults      | a full memory and a lost device, in a thread and in a process
    device      | right answers, latency of one row, hidden copies, stalls
    peers       | FastAPI, LitServe and Mosec beside this server
    loads       | memory after loads and unloads

Each part is a process with a time limit, and prints its figures one by one. Every figure is kept at
once: the files are written anew with each. The order is that of how much a part tells, for a
machine that is taken away early.

    python benchmarks/gpu/run.py                 on a GPU: benchmarks/results/gpu.{json,md}
    python benchmarks/gpu/run.py --only faults   one part: benchmarks/results/gpu_faults.{json,md}
    python benchmarks/gpu/run.py --dry           on the processor, small; into a temporary folder

Exit status: 0; 1 if a part failed, or a figure is not what is wanted; 2 without a GPU.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which modules have short names, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/benchmarks/")[0]

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Timer
from typing import Any

import orjson
import torch

from batcher.batching import queue
from benchmarks.gpu.figures import Figure
from benchmarks.gpu.probes import driver
from benchmarks.reporting import RESULTS, ROOT, write_results

PARTS = {
    "cuda_tests": 45,
    "http": 100,
    "faults": 70,
    "device": 90,
    "peers": 95,
    "loads": 80,
}
"""Names of the parts in `benchmarks/gpu/parts`, and the seconds that each may take: eight minutes
together."""

DRY_FACTOR = 5
"""How much longer a part may take on a dry run, on processors that are busy with other tests."""

LOGS = ROOT / "build" / "gpu"
"""Where the parts and their servers say what they do; not beside the results, which are few."""

END_S = 5.0
"""Seconds that a part has to stop its servers when its time is over."""

Popen = subprocess.Popen[bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, keep what they tell, and return the exit status."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # no part outlives this process
    if not options.dry and not torch.cuda.is_available():
        print("expected a GPU that PyTorch can use; got none. Try --dry", file=sys.stderr)
        return 2
    folder = options.out or (Path(tempfile.mkdtemp(prefix="gpu-")) if options.dry else RESULTS)
    for each in (folder, LOGS):
        each.mkdir(parents=True, exist_ok=True)
    name = "_".join(("gpu", *(options.only or ())))
    found: list[Figure] = []
    text = "no figures"
    for part in options.only or PARTS:
        began = time.monotonic()
        limit_s = PARTS[part] * (DRY_FACTOR if options.dry else 1)
        for figure in run_part(part, limit_s, LOGS, options.dry):
            found.append(figure)
            text = write(name, folder, found)
            print(f"{figure.part}: {figure.what}: {figure.value} {figure.unit}", flush=True)
        print(f"{part}: {time.monotonic() - began:.1f} s", flush=True)
    print(text, f"\n{folder / name}.json", flush=True)
    return int(any(figure.met == "no" for figure in found))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, help="parts to run, in place of all")
    parser.add_argument("--dry", action="store_true", help="on the processor, with small models")
    parser.add_argument("--out", type=Path, help="folder for the results")
    return parser.parse_args(arguments)


def write(name: str, folder: Path, found: Sequence[Figure]) -> str:
    """Write the figures so far, and return their table."""
    compiled = "compiled" if str(queue.__file__).endswith(".so") else "plain Python"
    about = f"Driver {driver() or 'none'}, CUDA {torch.version.cuda}; the hot path is {compiled}."
    remarks = (about, REMARK)
    return write_results(name, TITLE, [figure.row() for figure in found], remarks, folder)


TITLE = "What a GPU shows"
REMARK = (
    "Weights are random: what counts is the speed. `met` is a dash where nothing is wanted, and "
    "for every figure of speed on a dry run."
)


def run_part(part: str, limit_s: float, logs: Path, is_dry: bool) -> Iterator[Figure]:
    """Yield the figures of a part as the part tells them, and one more if it failed."""
    own = {"GPU_LOGS": str(logs / f"{part}_server.log"), "PYTHONPATH": python_path()}
    environment = {**os.environ, **own, **({"GPU_DRY": "1"} if is_dry else {})}
    log = logs / f"{part}.log"
    command = [sys.executable, "-m", f"benchmarks.gpu.parts.{part}"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    yield from told(part, process, limit_s, log, end)


def told(
    part: str, process: Popen, limit_s: float, log: Path, end: Callable[[Popen], None]
) -> Iterator[Figure]:
    """Yield the figures that a process prints, until it ends or is ended."""
    is_late = Event()

    def end_late() -> None:
        is_late.set()
        end(process)

    limit = Timer(limit_s, end_late)
    limit.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b'{"part":'):  # libraries print too
                document: dict[str, Any] = orjson.loads(line)
                yield Figure(**document)
        status = process.wait()
    finally:
        limit.cancel()
        end(process)
    if is_late.is_set():
        yield Figure(part, "ended by its time limit", f"{limit_s:g}", "s", "to end before", "no")
    elif status:
        yield Figure(part, "ended early", last_line(log), "", "to end by itself", "no")


def end(process: Popen) -> None:
    """End a process with all that it has started; at once, if a request to end does not do it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline and is_group(process.pid):
            process.poll()
            time.sleep(0.05)


def is_group(number: int) -> bool:
    """Return whether a process of the group is left."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def last_line(log: Path) -> str:
    """Return the last line of what a part said on its standard error."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")


def python_path() -> str:
    """Return the path for imports of a part: the root, and what this process has."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


if __name__ == "__main__":
    sys.exit(main())
