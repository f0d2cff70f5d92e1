"""Models over HTTP beside their bare loops, at full load, at half load and at twice what they can.

The server runs every model at once, as one would. A model is loaded by one load generator in a
closed loop; then the same model runs in bare loops of this process, while the server rests, with
batches as large as those that the server made.
"""

from __future__ import annotations

from math import ceil

from benchmarks.gpu.bare_loops import device_call, predict, random_rows, seconds_each
from benchmarks.gpu.figures import DRY, SECONDS, Figures
from benchmarks.gpu.probes import Batches, processor_seconds
from benchmarks.gpu.served_models import BERT, LOADED, MINILM, MLP, Served, running
from benchmarks.load import LoadOptions, LoadResult, run_load
from benchmarks.serving import Running
from benchmarks.wrk import OCTETS

MOST_REQUESTS_PER_S = 8_000.0
"""What one generator sends on a schedule with its own lag far below the figures."""

SETTLE_MS = 2.0
"""Milliseconds, besides the time of two full batches, that a request of the overload may take."""

RATIO, GOODPUT, LATENESS_MS = 0.95, 0.95, 1.0

TEXT = b'{"inputs": {"text": ["A sentence of about twenty words stands for what clients send."]}}'


def main() -> None:
    """Measure one model after the other."""
    figures = Figures("http")
    pairs = [pair for served in LOADED for pair in served.pairs()]
    names = [served.name for served in LOADED]
    if MINILM.folder.is_dir():
        pairs += MINILM.pairs()
        names.append(MINILM.name)
    else:
        figures.leave_out(MINILM.name, "make minilm has not made it")
    with running(names, *pairs) as server:
        for served in LOADED:
            if served.unknown_settings:
                figures.leave_out(f"{served.name}: {served.unknown_settings}", "no such setting")
            measure(figures, server, served)
        if MINILM.name in names:
            texts = closed_loop(server, MINILM, TEXT, {"Content-Type": "application/json"})
            figures.add("minilm: texts/s", texts.achieved_rate_200, "1/s")


def measure(figures: Figures, server: Running, served: Served) -> None:
    """Tell the figures of one model."""
    body = b"".join(array.tobytes() for array in random_rows(served, served.rows).values())
    batches, busy = Batches.read(server.http, served.name), processor_seconds(server.pid)
    result = closed_loop(server, served, body, OCTETS)
    requests = result.configuration["duration"] + result.configuration["warmup"]
    requests *= result.achieved_rate_200
    busy = processor_seconds(server.pid) - busy
    size = Batches.read(server.http, served.name).mean_since(batches)
    rate = result.achieved_rate_200 * served.rows
    failed = result.answered - result.statuses.get("200", 0) + result.unanswered
    figures.check(f"{served.name}: every request is answered with 200", not failed, f"{failed} not")
    figures.add(f"{served.name}: rows/s over HTTP", rate, "1/s")
    figures.add(f"{served.name}: mean rows of a batch", size)
    figures.add(f"{served.name}: p99", result.latency_200_ms.get("p99", 0.0), "ms")
    figures.add(f"{served.name}: requests/s for one core of processor", requests / busy, "1/s")
    rows = min(max(round(size), 1), served.max_batch_size)
    seconds_full = bare(figures, served, rows, rate)
    if served is BERT:
        at_half(figures, server, served, result, seconds_full)
        overload(figures, server, served, seconds_full)


def closed_loop(
    server: Running, served: Served, body: bytes, headers: dict[str, str]
) -> LoadResult:
    """Load a model with as many connections as it has."""
    return run_load(
        LoadOptions(
            f"{server.http}/models/{served.name}/predict",
            closed=True,
            connections=served.connections,
            body=body,
            headers=tuple(headers.items()),
            duration=SECONDS,
            warmup=SECONDS / 2,
        )
    )


def bare(figures: Figures, served: Served, rows: int, rate: float) -> float:
    """Tell the figures of the bare loops; return the seconds of a full batch on the device."""
    (checked, reason), batch = served.load_telling(), random_rows(served, rows)
    if reason:
        figures.leave_out(f"{served.name}: as its settings say", reason)
    calls = rows / seconds_each(lambda: predict(checked, batch), SECONDS / 2)
    on_device = rows / seconds_each(device_call(served, rows), SECONDS / 2)
    figures.add(f"{served.name}: rows/s of the server's model in a bare loop", calls, "1/s")
    figures.add(f"{served.name}: rows/s of a bare loop on the device", on_device, "1/s")
    # The small network is there for what a request costs: its device could answer millions.
    least = None if served is MLP else RATIO
    figures.add(f"{served.name}: over HTTP / on the device", rate / on_device, least=least)
    return seconds_each(device_call(served, served.max_batch_size), SECONDS / 2)


def on_schedule(
    server: Running, served: Served, rate: float, rows: int, deadline_ms: float | None = None
) -> LoadResult:
    """Send requests of `rows` rows at random times, so many rows a second."""
    body = b"".join(array.tobytes() for array in random_rows(served, rows).values())
    timeout = (("X-Timeout-Ms", f"{deadline_ms:.1f}"),) if deadline_ms else ()
    return run_load(
        LoadOptions(
            f"{server.http}/models/{served.name}/predict",
            rate=rate / rows,
            connections=1024,
            body=body,
            headers=(*OCTETS.items(), *timeout),
            duration=SECONDS,
            warmup=SECONDS / 2,
            deadline_ms=deadline_ms,
        )
    )


def at_half(
    figures: Figures, server: Running, served: Served, full: LoadResult, batch_s: float
) -> None:
    """Tell the latency at half of what the model did at full load."""
    half = full.achieved_rate_200 * served.rows / 2
    result = on_schedule(server, served, half, ceil(half / MOST_REQUESTS_PER_S))
    most = 2 * batch_s * 1e3 + LATENESS_MS
    figures.add(f"{served.name}: a full batch on the device", batch_s * 1e3, "ms")
    p99 = result.latency_200_ms.get("p99", 0.0)
    figures.add(f"{served.name}: p99 at half load{lagged(result)}", p99, "ms", most=round(most, 2))


def overload(figures: Figures, server: Running, served: Served, batch_s: float) -> None:
    """Tell the goodput when twice as much is asked as the bare loop does on the device."""
    capacity = served.max_batch_size / batch_s
    rows = ceil(2 * capacity / MOST_REQUESTS_PER_S)
    deadline_ms = 2 * batch_s * 1e3 + SETTLE_MS
    if DRY:
        deadline_ms *= 10
    result = on_schedule(server, served, 2 * capacity, rows, deadline_ms)
    goodput = result.on_time_rate * rows / capacity
    what = f"{served.name}: goodput at 2x of the device, in {deadline_ms:.1f} ms{lagged(result)}"
    figures.add(what, goodput, least=GOODPUT)


def lagged(result: LoadResult) -> str:
    """Return a remark on a generator that lagged its own schedule; empty if it did not."""
    return "" if result.valid else " (the generator lagged)"


if __name__ == "__main__":
    main()
