"""A full memory and a lost device, in a thread and in a process of the server.

Memory is taken by another process, until the model's own batches do not fit; an assertion that
fails in a kernel makes every later call of that process fail. Three models of one kind stand in one
server: one in a thread, and two in processes of their own, of which one is never harmed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np

from benchmarks.gpu.figures import DEVICE, DRY, SECONDS, Figures
from benchmarks.gpu.probes import Answer, ask, metric
from benchmarks.gpu.served_models import OWN, running
from benchmarks.load import LoadOptions, run_load
from benchmarks.serving import Running
from benchmarks.wrk import OCTETS

HEALTHY, FILLS, ASSERTS = range(3)
"""What the first value of a row asks of `models/faulty`."""

BATCH = 64
LEFT_MIB = 3 * 1024
"""What another process leaves of the device: for batches of 48 rows of 64 MiB."""

RETURN_S = 60.0
"""Seconds within which a process comes back: a spare of it stands ready."""

HARMED, UNHARMED = ("process", "thread"), "unharmed"

HOG = """
import sys, torch
free, total = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]) * 2**20, dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
print("held", flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Harm the process first: what the thread loses, it does not get back."""
    figures = Figures("faults")
    pairs = [
        pair
        for name in (*HARMED, UNHARMED)
        for pair in (
            f"models.{name}.path={OWN / 'faulty' / '1'}",
            f"models.{name}.worker={'thread' if name == 'thread' else 'process'}",
        )
    ]
    pairs += [f"defaults.max_batch_size={BATCH}", f"defaults.device={DEVICE}"]
    pairs.append("models.thread.overlap_copies=true")  # the way in which most is under way
    with running((*HARMED, UNHARMED), *pairs) as server:
        check_filled(figures, server)
        for name in HARMED:
            check_lost(figures, server, name)
        check_returned(figures, server)
        check_thread(figures, server)
        began = time.monotonic()
    figures.add("seconds to end the server after all that", time.monotonic() - began, "s", most=30)


def check_filled(figures: Figures, server: Running) -> None:
    """Fill the device from outside, and load both models with rows that need much of it."""
    for name in HARMED:
        # Anew for each: what a model's allocator keeps is no longer free for the next one.
        with nullcontext() if DRY else hog():
            result = run_load(
                LoadOptions(
                    f"{server.http}/models/{name}/predict",
                    closed=True,
                    connections=2 * BATCH,
                    body=row(FILLS),
                    headers=tuple(OCTETS.items()),
                    duration=SECONDS,
                    warmup=0.0,
                    timeout=30.0,
                )
            )
        answered = result.statuses.get("200", 0)
        what, found = (
            f"{name}: memory is short, every row is answered",
            f"{answered} of {result.sent}",
        )
        figures.check(what, 0 < answered == result.sent, found)
        most = metric(server.http, "batcher_batch_ceiling_rows", name)
        what = f"{name}: the server knows how many rows fit"
        figures.check(what, most < BATCH, f"{most:.0f} of {BATCH}")


@contextmanager
def hog() -> Iterator[None]:
    """Hold the device's memory in another process, but for `LEFT_MIB`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOG, str(LEFT_MIB)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "held":
        raise RuntimeError("the other process could not take the device's memory")
    try:
        yield
    finally:
        process.kill()
        process.wait()


def check_lost(figures: Figures, server: Running, name: str) -> None:
    """Make an assertion fail in the process of `name`."""
    answer = predict(server, name, ASSERTS)
    figures.check(
        f"{name}: the row whose assertion fails gets an error",
        answer.status in (500, 503),
        f"{answer.status} {answer.body[:120].decode(errors='replace')}",
    )
    check_healthy(figures, server, f"beside a lost {name}")


def check_healthy(figures: Figures, server: Running, when: str) -> None:
    """Check that the server lives, and that the model nobody harmed gives its own answers."""
    live = ask(f"{server.http}/livez").status
    figures.check(f"the server lives {when}", live == 200, str(live))
    answer = predict(server, UNHARMED, HEALTHY)
    is_right = answer.status == 200 and answer.body == row(HEALTHY)
    figures.check(f"the model in another process answers {when}", is_right, str(answer.status))


def check_returned(figures: Figures, server: Running) -> None:
    """Wait until the model in a process serves again."""
    began = time.monotonic()
    while (status := predict(server, "process", HEALTHY).status) != 200:
        if time.monotonic() - began > RETURN_S:
            break
        time.sleep(0.2)
    seconds = time.monotonic() - began
    figures.check("process: it serves again", status == 200, f"{status} after {seconds:.1f} s")


def check_thread(figures: Figures, server: Running) -> None:
    """Check that the model in a thread says at once that it cannot serve."""
    answer = predict(server, "thread", HEALTHY)
    figures.check(
        "thread: later requests get a 503 at once", answer.status == 503, str(answer.status)
    )
    ready = ask(f"{server.http}/readyz")
    is_named = ready.status == 503 and b"thread" in ready.body
    figures.check("thread: /readyz is 503 and names the model", is_named, str(ready.status))


def predict(server: Running, name: str, first: int) -> Answer:
    """Ask a model for one row."""
    return ask(f"{server.http}/models/{name}/predict", row(first))


def row(first: int) -> bytes:
    """Return one row, which begins with `first`."""
    return np.array([first, *[0.5] * 15], np.float32).tobytes()


if __name__ == "__main__":
    main()
