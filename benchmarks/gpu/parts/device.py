"""Models in this process: right answers, the latency of one row, copies and allocations.

The copies are read off a trace of PyTorch's profiler while the server's scheduler keeps the model
busy, in process, so that nothing but the path of a batch is measured.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvloop
from torch.profiler import ProfilerActivity, profile
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import installReactor

from batcher import ModelServer
from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.core.device_rows import InputsOnDevice, RowsOnDevice
from batcher.models.checked import CheckedModel
from batcher.models.kept_rows import Wish
from batcher.workers.run_batch import run_batch
from benchmarks.ceiling import Saturation
from benchmarks.gpu.bare_loops import device_call, predict, random_rows, seconds_each
from benchmarks.gpu.figures import DEVICE, DRY, SECONDS, Figures
from benchmarks.gpu.served_models import BERT, MLP, MLP50, RESNET, WAYS, Served, is_known
from benchmarks.gpu.trace import computing, hidden_share, host_copies, stalls

PADDED_ROWS = 5
"""Rows of a batch that is no power of two, so that a graph for it is padded."""

TOLERANCE = {"bf16": 0.05, "fp32": 0.01}
"""Largest difference of an output, as a share of the largest output: bf16 has 8 bits, and fp32 may
be computed as TF32, which has 11."""

GRAPHS_RATIO, HIDDEN_SHARE = 0.3, 0.9


def main() -> None:
    """Tell all figures."""
    figures = Figures("device")
    for served in (MLP, BERT, RESNET):
        check_answers(figures, served)
    tell_latency(figures, "plain", "graphs")
    tell_kept_rows(figures, RESNET)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = AsyncioSelectorReactor(loop)
    installReactor(reactor)
    for served in (BERT, RESNET):
        events = loop.run_until_complete(trace(served, reactor, loop))
        tell_trace(figures, served, events)
    if not DRY:  # last, since compilers take tens of seconds
        tell_latency(figures, "inductor", "aoti")


def check_answers(figures: Figures, served: Served) -> None:
    """Check that a batch that is padded gives what its rows give alone, and what the CPU gives."""
    rows = random_rows(served, PADDED_ROWS)
    checked = served.load()
    together = predict(checked, rows)
    alone = [
        predict(checked, {name: array[n : n + 1] for name, array in rows.items()})
        for n in range(PADDED_ROWS)
    ]
    plain = replace(served, settings={}).load(device="cpu", warmup=False, torch_threads=None)
    on_cpu = predict(plain, rows)
    allowed = TOLERANCE["bf16" if "dtype" in served.known_settings else "fp32"]
    for name, array in together.items():
        single = np.concatenate([answer[name] for answer in alone])
        for what, other in (("its rows alone", single), ("the processor", on_cpu[name])):
            found = float(np.abs(array - other).max() / np.abs(other).max())
            figures.check(
                f"{served.name}: {PADDED_ROWS} rows give what {what} gives, within {allowed:g}",
                found <= allowed,
                f"{found:.2g}",
            )


def tell_latency(figures: Figures, *ways: str) -> None:
    """Tell how long one row of the 50 layers takes, in ways that this tree has."""
    row = random_rows(MLP50, 1)
    found: dict[str, float] = {}
    for way in ways:
        if not all(is_known(*each) for each in WAYS[way].items()):
            figures.leave_out(f"mlp50, one row: {way}", "no such setting")
            continue
        checked, reason = MLP50.load_telling(max_batch_size=4, **WAYS[way])
        if reason:
            figures.leave_out(f"mlp50, one row: {way}", reason)
            continue
        call = partial(predict, checked, row)
        found[way] = seconds_each(call, SECONDS / 4)
        figures.add(f"mlp50, one row: {way}", found[way] * 1e6, "µs")
    if "plain" in found:
        least = seconds_each(device_call(MLP50, 1), SECONDS / 4)
        figures.add("mlp50, one row: a bare loop on the device", least * 1e6, "µs")
    if "graphs" in found:
        ratio = found["graphs"] / found["plain"]
        figures.add("mlp50, one row: graphs / plain", ratio, most=GRAPHS_RATIO)


def tell_kept_rows(figures: Figures, served: Served) -> None:
    """Tell how long a batch takes whose rows an earlier model has left on the device."""
    what = f"{served.name}: {served.max_batch_size} rows that an earlier model left on the device"
    checked, rows = served.load(overlap_copies=False), random_rows(served, served.max_batch_size)
    kept = checked.model.kept_rows
    if kept is None:
        figures.leave_out(what, "there is no GPU")
        return
    kept.follow(Wish(takes=frozenset(rows), devices=frozenset([kept.device])))
    there = InputsOnDevice(rows)
    there.twins = {
        name: RowsOnDevice(torch.from_numpy(array).to(DEVICE).view(-1), kept.device, 0)
        for name, array in rows.items()
    }
    found = [outputs_of(checked, inputs) for inputs in (rows, there)]
    same = all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    figures.check(f"{what}: the answers of rows from the host", same, str(same))
    by_host, on_device = (
        seconds_each(partial(outputs_of, checked, inputs), SECONDS) for inputs in (rows, there)
    )
    figures.add(f"{what}: their time / that of rows from the host", on_device / by_host, most=1)


def outputs_of(checked: CheckedModel, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the outputs of one batch, which is one request."""
    rows = len(next(iter(inputs.values())))
    batch = Batch([Part(inputs, rows, 0, (), 1, 0.0, 0.0)])
    outcome = run_batch(checked, batch, 0.0, time.perf_counter)
    if outcome.error is not None:
        raise outcome.error
    return outcome.results[0]


async def trace(served: Served, reactor: Any, loop: Any) -> list[dict[str, Any]]:
    """Return the events of some tenths of a second in which a model is kept busy."""
    server = ModelServer(reactor, loop.call_soon_threadsafe)
    await server.add(served.definition, served.model_settings()).asFuture(loop)
    saturation = Saturation(server, served.name, random_rows(served, 1))
    await saturation.rate(SECONDS / 2)  # until allocators have what they need
    kind = ProfilerActivity.CUDA if DEVICE == "cuda" else ProfilerActivity.CPU
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with profile(activities=[kind]) as profiler:
            await saturation.rate(SECONDS / 4)
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    await server.stop().asFuture(loop)
    return events


def tell_trace(figures: Figures, served: Served, events: list[dict[str, Any]]) -> None:
    """Tell what the trace of a model says."""
    share = hidden_share(host_copies(events), computing(events))
    if share is None:
        figures.leave_out(f"{served.name}: copies under compute", "the trace has no copies")
    else:
        figures.add(f"{served.name}: share of copies under compute", share, least=HIDDEN_SHARE)
    if DEVICE == "cpu":
        figures.leave_out(f"{served.name}: what stops the device", "there is none")
        return
    found = stalls(events)
    shown = ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "none"
    figures.check(f"{served.name}: nothing stops the device in steady state", not found, shown)


if __name__ == "__main__":
    main()
