"""The benchmark of faults, without servers: its model, its counts and its table."""

from __future__ import annotations

import argparse
import runpy
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from batcher.serving.metrics import ServerMetrics
from benchmarks import faults
from benchmarks.faults import (
    BATCH,
    CASES,
    CLIENTS,
    Case,
    Round,
    batches_run,
    loads_of,
    row,
    summary,
)
from benchmarks.load import LoadOptions, LoadResult
from benchmarks.loadgen.report import conclude
from benchmarks.loadgen.tally import Tally
from benchmarks.serving import MODELS

OPTIONS = argparse.Namespace(seconds=2.0, realtime=False)
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names in the model's file; the model takes no time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return runpy.run_path(str(MODELS / "faulty/1/faulty.py"))


def result(lag: float = 0.0, p99: float = 0.02, **statuses: int) -> LoadResult:
    """Return a run of 2 s with so many answers of each status (`s200=3`), all after `p99` s."""
    tally = Tally(10.0, 12.0)
    for status, count in statuses.items():
        for _ in range(count):
            tally.taken_up(11.0, 11.0 + lag)
            tally.sent(11.0, 0.0)
            tally.answered(11.0, int(status[1:]), 11.0 + p99)
    return conclude(tally, LoadOptions("http://127.0.0.1:8080/").describe(), 2.0, 0.25)


def rows_of(*values: int) -> dict[str, np.ndarray]:
    return {"input": np.frombuffer(b"".join(map(row, values)), np.float32).reshape(-1, 64).copy()}


def load_of(name: str) -> dict[str, LoadOptions]:
    return loads_of("http://127.0.0.1:8080", BY_NAME[name], OPTIONS, seed=3)


def test_benchmark_and_model_call_faults_by_the_same_numbers(faulty: dict[str, Any]) -> None:
    names = ("RAISES", "HANGS", "CRASHES", "LOSES_ROW", "GIVES_NAN")
    assert [faulty[name] for name in names] == [getattr(faults, name) for name in names]


def test_the_model_fails_as_a_row_asks_and_only_then(faulty: dict[str, Any]) -> None:
    model = faulty["Faulty"]()
    healthy = rows_of(faults.HEALTHY, faults.HEALTHY)
    np.testing.assert_array_equal(model.predict(healthy)["output"], healthy["input"])
    with pytest.raises(ValueError, match="poisoned"):
        model.predict(rows_of(faults.HEALTHY, faults.RAISES))
    assert (
        len(model.predict(rows_of(faults.HEALTHY, faults.LOSES_ROW, faults.HEALTHY))["output"]) == 2
    )
    finite = np.isfinite(model.predict(rows_of(faults.GIVES_NAN, faults.HEALTHY))["output"]).all(
        axis=1
    )
    assert finite.tolist() == [False, True]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.victim], ids=lambda case: case.name
)
def test_a_faulty_victim_has_the_load_of_the_healthy_one_beside_which_it_stands(case: Case) -> None:
    loads, healthy = (
        loads_of("http://127.0.0.1:8080", each, OPTIONS, seed=3)
        for each in (case, BY_NAME[case.beside])
    )
    assert loads["other"] == healthy["other"]
    if case.faulty:
        assert sum(load.connections for who, load in loads.items() if who != "other") == CLIENTS
    else:
        assert loads["innocent"] == healthy["innocent"]
        assert loads["guilty"].rate == healthy["guilty"].rate


def test_no_load_is_put_on_an_absent_victim_and_no_innocent_one_on_a_broken_one() -> None:
    assert set(load_of("absent")) == {"other"}
    assert set(load_of("broken")) == {"other", "guilty"}


def test_the_victim_is_loaded_for_longer_than_what_stands_beside_it_is_measured() -> None:
    loads = load_of("poisoned")
    for who in ("innocent", "guilty"):
        assert loads[who].duration > loads["other"].warmup + loads["other"].duration


def test_batches_are_counted_by_reason_for_one_model() -> None:
    metrics = ServerMetrics()
    victim = metrics.model("victim", "1")
    for reason in ("full", "full", "isolate"):
        victim.count_sent(BATCH, reason)
    victim.failed_batches = 3
    metrics.model("other", "1").count_sent(BATCH, "idle")
    assert batches_run(metrics.render().decode(), "victim") == {
        "full": 2,
        "isolate": 1,
        "failed": 3,
    }


def test_a_summary_has_ratios_to_the_healthy_victim_and_sums_over_the_rounds() -> None:
    healthy = [Round(result(s200=100, p99=0.02), None, None, Counter())]
    batches = Counter({"full": 3, "isolate": 24, "failed": 14})
    found = Round(result(s200=80, p99=0.03), result(s200=60, s503=4), result(s500=2), batches)
    table = summary(BY_NAME["poisoned"], [found, found], healthy)
    assert (table["ratio"], table["p99 ratio"]) == (0.8, 1.5)
    assert (table["innocent failed"], table["guilty"]) == ("8 of 128", "4 500")
    assert (table["fresh batches"], table["runs again"], table["failed runs"]) == (6, 12.0, 28)


def test_of_a_broken_model_runs_are_counted_by_fresh_batch() -> None:
    rounds = [
        Round(
            result(s200=1),
            None,
            result(s500=128),
            Counter({"full": 2, "isolate": 28, "failed": 30}),
        )
    ]
    table = summary(BY_NAME["broken"], rounds, rounds)
    assert (table["innocent failed"], table["runs again"]) == ("0 of 0", 14.0)


def test_a_round_whose_generator_lagged_is_left_out_of_the_ratios() -> None:
    good = Round(result(s200=100), None, None, Counter())
    late = Round(result(s200=10, lag=0.005), None, None, Counter())
    table = summary(BY_NAME["absent"], [good, late], [good])
    assert (table["ratio"], table["left out"]) == (1.0, "1 of 2")
