"""What `batcher tune` is worth: its settings beside the default ones, under the load it was told.

Each case runs `batcher tune MODEL ... --write` once, on a configuration that names nothing but the
repository. Then two servers, one with the default settings and one with the written ones, get the
same load by turns, from a generator that had no part in the tuning: `benchmarks/load.py`, and for
MiniLM a thread for each client, with texts of the README and docs/ (`benchmarks/embeddings.py`).

| case | load |
|---|---|
| `digits`, closed | 64 clients that each await their answer |
| `digits`, open | 500 requests/s, of use within 50 ms |
| `knee`, closed | 64 clients; a row costs ten times as much in batches of more than 16 rows |
| `overload`, open | 1.3 times capacity, of use within 40 ms |
| `minilm`, closed | 32 clients with texts of unequal length; `make minilm` makes the model |

The table has medians over the rounds, and of the ratios within a round. Where the tuning has kept
the default settings, both servers are equal, and their ratio shows the noise.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import yaml

from benchmarks.embeddings import prose
from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import ROOT, write_results
from benchmarks.serving import MODELS, running_server
from benchmarks.wrk import OCTETS

BODY = np.random.default_rng(0).random(64, dtype=np.float32).tobytes()
WARMUP_S = 1.0

QUANTILES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Of the words of a text: what the tuning is told of the lengths."""

TIMEOUT_S = 60.0
OK = 200


class Case(NamedTuple):
    """A model and its load.

    Attributes:
        model: name of the model.
        repository: where the model lies.
        clients: clients of a closed loop; None for an open loop.
        rate: requests/s of an open loop.
        deadline_ms: time after which an answer is of no use; None for any time.
        has_texts: whether requests are texts of unequal length.
    """

    model: str
    repository: Path
    clients: int | None = None
    rate: float = 0.0
    deadline_ms: float | None = None
    has_texts: bool = False

    @property
    def words(self) -> list[str]:
        """The load as options of `batcher tune`."""
        load = ["--clients", str(self.clients)] if self.clients else ["--rate", f"{self.rate:g}"]
        load += ["--deadline", f"{self.deadline_ms:g}ms"] if self.deadline_ms else []
        return load + (["--length", lengths_of(prose())] if self.has_texts else [])


class Round(NamedTuple):
    """One measurement.

    Attributes:
        rate: answers a second that are of use.
        p99_ms: 99th percentile of their latency.
        result: all that the generator says; None of clients with texts.
    """

    rate: float
    p99_ms: float
    result: LoadResult | None = None


CASES = {
    "digits_closed": Case("digits", ROOT / "models", clients=64),
    "digits_open": Case("digits", ROOT / "models", rate=500, deadline_ms=50),
    "knee_closed": Case("knee", MODELS, clients=64),
    "overload_open": Case("overload", MODELS, rate=2850, deadline_ms=40),
    "minilm_closed": Case("minilm", ROOT / "models", clients=32, has_texts=True),
}

REMARKS = (
    "`written`: what `batcher tune` has put into config.yaml; the rest is default.",
    "`default/s`, `tuned/s`: answers 200 a second, where there is a deadline those in time. "
    "`ratio`: of the two, median over the rounds of the ratio within a round; `spread`: least and "
    "greatest.",
    "p99 counts from the time for which a request was scheduled, in the open loops.",
    "A server that answers nobody in time counts as one answer a second.",
)


def main() -> int:
    """Tune, measure, write the results, print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--time", default="60s", help="of each tuning")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args()
    rows, rounds = [], []
    for name in options.cases:
        case = CASES[name]
        written = tuned(case, options.time)
        print(name, written, flush=True)
        default, own = measured(case, written, options)
        rows.append(summary(case, written, default, own))
        print(rows[-1], flush=True)
        rounds += [*default, *own]
    title = "The settings of `batcher tune` beside the default ones"
    print(write_results("tuned", title, rows, REMARKS))
    return report_invalid([each.result for each in rounds if each.result is not None])


def tuned(case: Case, time: str) -> dict[str, Any]:
    """Run `batcher tune`, and return the settings that it has written."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(f"model_repository: {case.repository}\n", encoding="utf-8")
        command = [sys.executable, "-m", "batcher.app.cli", "tune", case.model, "-c", str(config)]
        words = [*case.words, "--time", time, "--write"]
        subprocess.run([*command, *words], check=True, cwd=ROOT)
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    found: dict[str, Any] = values.get("models", {}).get(case.model, {})
    return found


def measured(
    case: Case, written: dict[str, Any], options: argparse.Namespace
) -> tuple[list[Round], list[Round]]:
    """Return the rounds of the default settings, and of those that were written."""
    own = [f"models.{case.model}.{key}={value}" for key, value in written.items()]
    only = f"load_at_start=[{case.model}]"
    rounds: tuple[list[Round], list[Round]] = ([], [])
    with ExitStack() as stack:
        urls = [
            f"{stack.enter_context(running_server(case.repository, only, *settings))}"
            f"/models/{case.model}/predict"
            for settings in ([], own)
        ]
        for number in range(options.rounds):
            turns = list(zip(urls, rounds, strict=True))
            for url, found in turns if number % 2 == 0 else turns[::-1]:
                found.append(measurement(case, url, options.seconds, number))
    return rounds


def measurement(case: Case, url: str, seconds: float, number: int) -> Round:
    """Return one measurement of the server at `url`."""
    if case.has_texts:
        return texts_round(url, case.clients or 1, seconds)
    result = run_load(load_options(case, url, seconds, number))
    answers = result.on_time_rate if case.deadline_ms else result.achieved_rate_200
    return Round(answers, result.latency_200_ms.get("p99", 0.0), result)


def lengths_of(texts: Sequence[str]) -> str:
    """Return the words of `texts` as `batcher tune --length` takes them."""
    words = np.quantile([len(text.split()) for text in texts], QUANTILES)
    return ",".join(f"{max(round(each), 1)}=1" for each in words)


def texts_round(url: str, clients: int, seconds: float) -> Round:
    """Return what `clients` clients get that each send one text after the other."""
    texts = prose()
    begin = time.monotonic() + WARMUP_S
    end = begin + seconds

    def client(number: int) -> list[float]:
        start = number * len(texts) // clients
        own = cycle([*texts[start:], *texts[:start]])
        connection = HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
        took: list[float] = []
        while (sent := time.monotonic()) < end:
            connection.request(
                "POST", urlsplit(url).path, next(own).encode(), {"Content-Type": "text/plain"}
            )
            answer = connection.getresponse()
            answer.read()
            now = time.monotonic()
            if begin <= now < end and answer.status == OK:
                took.append(now - sent)
        connection.close()
        return took

    with ThreadPoolExecutor(clients) as pool:
        took = np.concatenate(list(pool.map(client, range(clients))))
    p99 = float(np.percentile(took, 99)) * 1e3 if len(took) else 0.0
    return Round(len(took) / seconds, round(p99, 1))


def load_options(case: Case, url: str, seconds: float, seed: int) -> LoadOptions:
    """Return the load of one measurement."""
    return LoadOptions(
        url=url,
        body=BODY,
        headers=tuple(OCTETS.items()),
        closed=case.clients is not None,
        rate=case.rate or 1.0,
        connections=case.clients or 2048,
        duration=seconds,
        warmup=WARMUP_S,
        deadline_ms=case.deadline_ms,
        seed=seed,
    )


def summary(
    case: Case,
    written: dict[str, Any],
    default: Sequence[Round],
    own: Sequence[Round],
) -> dict[str, Any]:
    """Return the row of one case."""
    before, after = ([each.rate for each in rounds] for rounds in (default, own))
    # a server that answers nobody in time counts as one answer a second
    ratios = [max(new, 1.0) / max(old, 1.0) for old, new in zip(before, after, strict=True)]
    return {
        "model": case.model,
        "load": " ".join(case.words),
        "written": ", ".join(f"{key} {value}" for key, value in written.items()) or "nothing",
        "default/s": round(median(before)),
        "tuned/s": round(median(after)),
        "ratio": round(median(ratios), 3),
        "spread": f"{min(ratios):.2f} to {max(ratios):.2f}",
        "default p99 ms": median(each.p99_ms for each in default),
        "tuned p99 ms": median(each.p99_ms for each in own),
    }


if __name__ == "__main__":
    sys.exit(main())
