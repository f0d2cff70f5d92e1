"""What the server adds at low load: no artificial wait.

Over HTTP, at a few requests a second on a constant schedule, all in one run:

    left = latency of the fixed-cost model - latency of the echo model - seconds of the bare call

The fixed-cost model sleeps 2.05 ms for a row. What is left is waiting that nobody asked for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.bare import bare_latency, example_row, load
from benchmarks.load import LoadOptions, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options = parser.parse_args()
    definition, checked = load(MODELS / "fixed_cost", 64)
    row = example_row(definition)
    body = b"".join(array.tobytes() for array in row.values())
    rounds: list[dict[str, Any]] = []
    with running_server(MODELS) as address:
        for number in range(options.rounds):
            echo, fixed = (
                latency(f"{address}/models/{name}/predict", body, options.rate, options.seconds)
                for name in ("echo", "fixed_cost")
            )
            bare = bare_latency(checked, row, int(options.rate * options.seconds)) * 1e3
            rounds.append(
                {
                    "round": number + 1,
                    "fixed cost ms": fixed,
                    "echo ms": echo,
                    "bare ms": bare,
                    "left ms": fixed - echo - bare,
                }
            )
    left = median(round_["left ms"] for round_ in rounds)
    remarks = (f"Median of what is left: {left:.3f} ms.",)
    print(
        write_results(
            "fixed_cost",
            f"Mean latency at {options.rate:g} requests/s, one row each",
            rounds,
            remarks,
        )
    )


def latency(url: str, body: bytes, rate: float, seconds: float) -> float:
    """Return the mean latency in ms at `rate` requests/s, counted from the scheduled time."""
    headers = (("Content-Type", "application/octet-stream"),)
    target = LoadOptions(
        url=url,
        body=body,
        headers=headers,
        schedule="constant",
        rate=rate,
        duration=seconds,
        warmup=0.5,
    )
    result = run_load(target)
    if not result.valid or result.statuses != {"200": result.sent}:
        raise RuntimeError(f"the run is not to be used: {result.invalid_reason or result.statuses}")
    return result.latency_ms["mean"]


if __name__ == "__main__":
    main()
