"""Memory after many loads and unloads: of native packages, of graphs, of the model as it is.

A server loads one model, answers a row and unloads the model, again and again. What the device and
the process hold after the last round is compared with what they held after the first rounds, in
which libraries and allocators take what they keep for good.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.gpu.bare_loops import random_rows
from benchmarks.gpu.figures import DEVICE, DRY, Figures
from benchmarks.gpu.probes import ask, device_mib, resident_mib
from benchmarks.gpu.served_models import MLP, WAYS, in_yaml, is_known, running, why_plain
from benchmarks.serving import Running

LOADED = ("graphs", "plain") if DRY else ("aoti", "graphs", "plain")
"""Ways in which the model is loaded, those first that are the likeliest to keep memory.

On a dry run none that a compiler works on for long.
"""

MOST_ROWS = 8
"""Rows of the largest batch: few graphs to capture, so that all rounds fit into the time."""

FIRST = 1 if DRY else 3
"""Rounds before the first measurement."""

ROUNDS = {"plain": 2, "graphs": 2} if DRY else {"plain": 8, "graphs": 20, "aoti": 20}
"""Rounds from there to the last, by the way of loading."""

MOST_MIB = {"device": 4.0, "process": 32.0}
"""MiB that may be held more: of the device two small blocks of PyTorch's allocator, of 2 MiB each;
of the process what `benchmarks/soak.py` allows.
"""


def main() -> None:
    """Load and unload in every way that this tree has."""
    figures = Figures("loads")
    pairs = ["model_control=explicit", f"defaults.device={DEVICE}"]
    names = [name for name in LOADED if all(is_known(*each) for each in WAYS[name].items())]
    for name in LOADED:
        own = {"path": MLP.folder / "1", "max_batch_size": MOST_ROWS, **WAYS[name]}
        if name in names:
            pairs += [f"models.{name}.{key}={in_yaml(value)}" for key, value in own.items()]
        else:
            figures.leave_out(f"{name}: {ROUNDS[name]} loads and unloads", "no such setting")
    with running((), *pairs) as server:
        for name in names:
            again_and_again(figures, server, name)


def again_and_again(figures: Figures, server: Running, name: str) -> None:
    """Tell what is held more after the rounds of `name`."""
    log = Path(os.environ.get("GPU_LOGS", os.devnull))
    known = log.stat().st_size
    for _ in range(FIRST):
        once(server, name)
    if reason := why_plain(log.read_bytes()[known:].decode(errors="replace")):
        figures.leave_out(f"{name}: {ROUNDS[name]} loads and unloads", reason)
        return
    device, process = device_mib(), resident_mib(server.pid)
    for _ in range(ROUNDS[name]):
        once(server, name)
    what = f"{name}: {ROUNDS[name]} loads and unloads, held more of the"
    grown = resident_mib(server.pid) - process
    figures.add(f"{what} process", grown, "MiB", most=MOST_MIB["process"])
    if device is not None:
        grown = (device_mib() or 0.0) - device
        figures.add(f"{what} device", grown, "MiB", most=MOST_MIB["device"])


def once(server: Running, name: str) -> None:
    """Load the model, ask it for a row, and unload it."""
    body = random_rows(MLP, 1)["input"].tobytes()
    for url, sent in (
        (f"/v2/repository/models/{name}/load", b"{}"),
        (f"/models/{name}/predict", body),
        (f"/v2/repository/models/{name}/unload", b"{}"),
    ):
        answer = ask(server.http + url, sent)
        if answer.status != 200:
            raise SystemExit(f"expected 200 of {url}; got {answer.status}: {answer.body[:200]!r}")


if __name__ == "__main__":
    main()
