"""What new versions of models cost clients: reloads, promotes, aborts, shadows and canaries.

A real server over sockets, in three parts, each of which can be run alone:

`changes`: one model is reloaded with other content, and of another model new versions come as
canary and are promoted or aborted, by turns. Clients of both check each answer: was that version
meant at some time between sending and answering? Beside them two more models are asked in open
loops at random (Poisson) times, one that sleeps and one that computes. Windows without and with
changes alternate; the load is the same in both, and so are the bytes that are written to the disk:
what differs is the work of the server. Changes come in quick succession first, for some windows,
and then at the pace at which p99 is judged, until each kind was made as often as was asked for: on
two cores, which the clients share, a change is felt for a tenth of a second.

`shadows`: five models in processes of their own that differ in their shadow alone: two have none,
one has a shadow that hangs, one a shadow that ends its process at each batch, one a shadow that
takes ten times as long. As many requests are copied as by default, or as `--sample` says. Clients
of each model are measured by turns in an order that is drawn anew, hundreds of times for a quarter
of a second: the medians of all requests are compared, which the machine's slow moments meet alike.
Standard errors are those of a thousand draws of as many rounds. A shadow that ends again and again
is started again ever later, so most of its copies find it away: the table counts them.

`canary`: 100,000 requests with a key each and 100,000 without are divided at 5 %. Then the server
is started anew, and half of the keys are asked again: each must meet the version of before.

Parts that are run alone write `results/rollouts_PART.md`.

A run whose generator lagged its own schedule says nothing: the window is left out and counted, and
makes the exit status 3.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.gpu.probes import metric
from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, Running, server_process
from benchmarks.trials.changes import Changes
from benchmarks.trials.clients import Answered, Load, run_loads, under_load
from benchmarks.trials.repository import write_version

OTHERS = {"fixed_cost": (64, 400.0), "mlp": (784, 200.0)}
"""Models that nobody changes: numbers of a row, and requests a second."""

CANARY = "{version: latest, steps: [5], every: 1d, min_requests: 100000000}"
"""A trial that stays at 5 % until a person ends it."""

KEYS = 100_000

SHADOWS = {
    "none": "",
    "none either": "",
    "hangs": "hangs",
    "crashes": "crashes",
    "ten times slower": "",
}
"""Kinds of shadows, and what `write_version` calls them."""

STABLE_S = 0.002
"""Seconds of a batch of a version that answers clients."""

TURN_S = 0.25
"""Seconds for which the clients of one kind of shadow ask."""

PAUSE_S = 0.1
"""Seconds between two kinds of shadows, in which most copies that are under way end."""

DRAWS = 1000
"""Draws of rounds, by which a standard error is told."""

WARMUP_S = 1.0
"""Seconds of load before each window."""

SETTLE_S = 3.0
"""Seconds for which a server rests before it is measured: processes in reserve import PyTorch."""

Row = dict[str, Any]


def row(part: str, case: str, figure: str, value: Any, asked: str) -> Row:
    """Return one line of the table."""
    return {"part": part, "case": case, "figure": figure, "value": value, "asked for": asked}


def changes(options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[LoadResult]]:
    """Measure what changes of some models cost their clients and those of others."""
    repository, log = folder / "models", folder / "log"
    Changes.write(repository)
    settings = (
        f"state_folder={folder}",
        "model_control=explicit",
        f"models.tried.canary={CANARY}",
        *(f"models.{name}.path={MODELS / name}" for name in OTHERS),
    )
    quick, judged = (Windows(pause, options) for pause in (options.quick_pause, options.pause))
    with server_process(repository, *settings, log=log) as server:
        made = Changes(server, repository, log)
        loads = {name: Load(server.http, name, 4, 0.02) for name in ("replaced", "tried")}
        with under_load(*loads.values()):
            time.sleep(SETTLE_S)
            for _ in range(options.quick_windows):
                quick.measure(server, made)
            enough = options.changes + min(map(len, made.seconds.values()))
            while min(map(len, made.seconds.values())) < enough:
                judged.measure(server, made)
    rows = _rows_of_changes(made, loads) + quick.rows("") + judged.rows("at most 1.1")
    return rows, quick.runs() + judged.runs()


class Windows:
    """Pairs of windows, one without changes and one with, that the other models are asked in."""

    def __init__(self, pause: float, options: argparse.Namespace) -> None:
        """Make a change each `pause` seconds, six at least in a window with changes."""
        self._pause = pause
        self._options = options
        # as long without: the longer a window, the more of the machine's slow moments it meets
        self._seconds = max(options.seconds, 6 * pause)
        self._found: dict[bool, list[dict[str, LoadResult]]] = {False: [], True: []}

    def measure(self, server: Running, made: Changes) -> None:
        """Measure both windows of a pair, and print what was found."""
        for with_changes, found in self._found.items():
            ended = time.monotonic() + self._seconds + WARMUP_S
            change = made.change if with_changes else made.only_write
            with ThreadPoolExecutor(1) as pool:
                changing = pool.submit(_change, change, self._pause, ended)
                found.append(_others(server, self._options, self._seconds, len(found)))
                changing.result()
        last = ", ".join(
            f"{name} p99 {self._found[False][-1][name].latency_200_ms['p99']:.2f} -> "
            f"{self._found[True][-1][name].latency_200_ms['p99']:.2f} ms"
            for name in OTHERS
        )
        print(f"{sum(map(len, made.seconds.values()))} changes; {last}", flush=True)

    def runs(self) -> list[LoadResult]:
        """Return every run of a load generator."""
        return [result for runs in self._found.values() for run in runs for result in run.values()]

    def rows(self, asked: str) -> list[Row]:
        """Return the lines of the table; `asked` is what is asked of the ratio of p99."""
        rows = []
        for name in OTHERS:
            runs = [run[name] for each in self._found.values() for run in each]
            failed = sum(each.scheduled - each.statuses.get("200", 0) for each in runs)
            out = sum(not each.valid for each in runs)
            case = f"{name}, a change each {self._pause:g} s, {len(runs)} windows, {out} left out"
            rows.append(row("changes", case, "lost or failed", failed, "0"))
            for what in ("p50", "p99"):
                without, beside = (self._median(key, name, what) for key in (False, True))
                rows.append(row("changes", case, f"{what} without, ms", without, ""))
                rows.append(row("changes", case, f"{what} with changes, ms", beside, ""))
                is_asked = asked if what == "p99" else ""
                rows.append(row("changes", case, f"{what} ratio", beside / without, is_asked))
        return rows

    def _median(self, with_changes: bool, name: str, what: str) -> float:
        """Return the median over the valid runs."""
        runs = [run[name] for run in self._found[with_changes]]
        found = [run.latency_200_ms[what] for run in runs if run.valid]
        return median(found) if found else float("nan")


def _change(change: Callable[[], None], pause: float, until: float) -> None:
    """Make a change each `pause` seconds."""
    while time.monotonic() < until:
        began = time.monotonic()
        change()
        time.sleep(max(0.0, pause - (time.monotonic() - began)))


def _others(
    server: Running, options: argparse.Namespace, seconds: float, seed: int
) -> dict[str, LoadResult]:
    """Ask the models that nobody changes."""
    loads = {
        name: LoadOptions(
            url=f"{server.http}/models/{name}/predict",
            body=np.random.default_rng(0).random(numbers, dtype=np.float32).tobytes(),
            rate=rate,
            duration=seconds,
            warmup=WARMUP_S,
            connections=64,
            seed=seed,
            realtime=options.realtime,
        )
        for name, (numbers, rate) in OTHERS.items()
    }
    with ThreadPoolExecutor(len(loads)) as pool:
        return dict(zip(loads, pool.map(run_load, loads.values()), strict=True))


def _rows_of_changes(made: Changes, loads: dict[str, Load]) -> list[Row]:
    rows = []
    for name, meant in (("replaced", made.replaced), ("tried", made.tried)):
        answered = loads[name].answered
        lost = sum(one.status != 200 or one.number < 0 for one in answered)
        case = f"{len(answered):,} requests of the model that is {name}"
        rows.append(row("changes", case, "lost or failed", lost, "0"))
        rows.append(row("changes", case, "by a version not meant", meant.wrong(answered), "0"))
    for kind, seconds in made.seconds.items():
        case = f"{len(seconds)} times {kind}"
        rows.append(row("changes", case, "median seconds", median(seconds), ""))
    return rows


def shadows(options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[LoadResult]]:
    """Measure what shadows that fail cost clients."""
    names = {kind: f"shadow_{number}" for number, kind in enumerate(SHADOWS)}
    settings = [f"state_folder={folder}", "defaults.worker=process"]
    for kind, name in names.items():
        write_version(folder / "models", name, 1, 1, STABLE_S)
        if not kind.startswith("none"):
            slower = 10 if kind.startswith("ten") else 1
            write_version(folder / "models", name, 2, 2, STABLE_S * slower, SHADOWS[kind])
            settings += [
                f"models.{name}.shadow={{version: 2, sample: {options.sample}}}",
                f"models.{name}.versions=[1]",
            ]
    found: dict[str, list[list[Answered]]] = {kind: [] for kind in SHADOWS}
    order = Random(0)
    with server_process(folder / "models", *settings) as server:
        time.sleep(4 * SETTLE_S)
        for _ in range(options.rounds):
            for kind in order.sample([*SHADOWS], len(SHADOWS)):
                load = Load(server.http, names[kind], 2, 0.005)
                with under_load(load):
                    time.sleep(TURN_S)
                found[kind].append(load.answered)
                time.sleep(PAUSE_S)
        copies = {kind: _copies(server.http, name) for kind, name in names.items()}
    return list(_rows_of_shadows(found, copies)), []


def _copies(address: str, model: str) -> dict[str, float]:
    """Return how many copies the shadow of a model was sent, by what became of them."""
    outcomes = ("same", "different", "failed", "dropped", "not_ready", "not_compared")
    name = "batcher_shadow_requests_total"
    counts = {each: metric(address, name, model, outcome=each) for each in outcomes}
    return {each: count for each, count in counts.items() if count}


def _rows_of_shadows(
    found: dict[str, list[list[Answered]]], copies: dict[str, dict[str, float]]
) -> Iterator[Row]:
    times = {kind: [_times_ms(turn) for turn in turns] for kind, turns in found.items()}
    for kind, turns in found.items():
        answered = [one for turn in turns for one in turn]
        failed = sum(one.status != 200 for one in answered)
        seen = sum(one.status == 200 and one.number != 1 for one in answered)
        case = f"shadow: {kind}; {len(answered):,} requests"
        yield row("shadows", case, "failed clients", failed, "0")
        yield row("shadows", case, "answered by the shadow, or wrong", seen, "0")
        for outcome, count in copies[kind].items():
            yield row("shadows", case, f"copies, {outcome}", count, "")
        yield row("shadows", case, "median, ms", float(np.median(np.concatenate(times[kind]))), "")
        if kind != "none":
            more, error = _more_ms(times[kind], times["none"])
            asked = "" if kind.startswith("none") else "at most 0.05"
            yield row("shadows", case, "median more than without, ms", more, asked)
            yield row("shadows", case, "standard error of that, ms", error, "")


def _times_ms(answered: list[Answered]) -> np.ndarray:
    return np.array([one.at - one.sent for one in answered]) * 1e3


def _more_ms(turns: list[np.ndarray], plain: list[np.ndarray]) -> tuple[float, float]:
    """Return by how much the median of one kind is longer than of another, and its error."""

    def more(rounds: Sequence[int]) -> float:
        one, other = (np.concatenate([each[place] for place in rounds]) for each in (turns, plain))
        return float(np.median(one) - np.median(other))

    draw, count = np.random.default_rng(0), len(turns)
    drawn = [more(draw.integers(count, size=count).tolist()) for _ in range(DRAWS)]
    return more(range(count)), float(np.std(drawn))


def canary(options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[LoadResult]]:
    """Measure how many requests a canary of 5 % gets, and whether keys stay."""
    for version in (1, 2):
        write_version(folder / "models", "tried", version, version)
    settings = (
        f"state_folder={folder}",
        f"models.tried.canary={CANARY}",
        "models.tried.labels={stable: 1}",  # else the newest alone would serve
    )
    rows, sides = [], []
    for run in range(2):
        keys = [f"user-{number}" for number in range(KEYS if run == 0 else KEYS // 2)]
        with server_process(folder / "models", *settings) as server:
            loads = [Load(server.http, "tried", 64, keys=_one_by_one(keys))]
            if run == 0:
                loads.append(Load(server.http, "tried", 64, keys=_one_by_one([""] * KEYS)))
            for load in loads:
                run_loads(load)
        for load, what in zip(loads, ("a key each", "no keys"), strict=False):
            failed = sum(one.status != 200 for one in load.answered)
            case = f"{len(load.answered):,} requests, {what}{', after a restart' * run}"
            rows.append(row("canary", case, "failed", failed, "0"))
            percent = 100 * sum(one.number == 2 for one in load.answered) / len(load.answered)
            rows.append(row("canary", case, "percent to the canary", round(percent, 3), "5 ± 0.2"))
            untold = sum(one.told != str(one.number) for one in load.answered)
            rows.append(row("canary", case, "wrong X-Model-Version", untold, "0"))
        sides.append({one.key: one.number for one in loads[0].answered})
    moved = sum(sides[0][key] != side for key, side in sides[1].items())
    rows.append(row("canary", f"{len(sides[1]):,} keys asked again", "changed sides", moved, "0"))
    return rows, []


def _one_by_one(keys: list[str]) -> Any:
    left = iter(keys)
    return lambda: next(left, None)


PARTS = {"changes": changes, "shadows": shadows, "canary": canary}


def main() -> int:
    """Measure, write the results, print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all without")
    parser.add_argument("--changes", type=int, default=100, help="of each kind, at least")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds from change to change")
    parser.add_argument("--quick-pause", type=float, default=0.3, help="the same, at first")
    parser.add_argument("--quick-windows", type=int, default=3, help="pairs of windows at first")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window, at least")
    parser.add_argument("--rounds", type=int, default=200, help="of shadows, some 2 s each")
    parser.add_argument("--sample", type=float, default=0.1, help="share that shadows get")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run open loops under SCHED_FIFO (needs the privilege)",
    )
    options = parser.parse_args()
    rows, runs, load = [], [], os.getloadavg()[0]
    parts = options.parts or list(PARTS)
    for part in parts:
        with TemporaryDirectory() as folder:
            found, results = PARTS[part](options, Path(folder))
        rows += found
        runs += results
    remarks = [
        f"When the run began, {load:.1f} other processes wanted a core (load average of a minute)."
    ]
    if "shadows" in parts:
        remarks.append(f"Shadows get copies of {options.sample:.0%} of the requests.")
    name = "_".join(["rollouts", *options.parts])
    print(write_results(name, "New versions of models under load", rows, remarks))
    return report_invalid(runs)


if __name__ == "__main__":
    sys.exit(main())
