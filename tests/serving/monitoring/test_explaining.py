"""Facts in, sentences out: each situation has its words, and what to change where something is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batcher.serving.monitoring.explaining import explain
from batcher.serving.monitoring.facts import Facts, Window
from batcher.serving.monitoring.situations import SITUATIONS
from batcher.serving.monitoring.wording import counted, number, percent, several, time_text

SPARSE = Window(
    seconds=10,
    batches=100,
    rows=310,
    batch_s=18e-3,
    parts=310,
    queued=1e-3,
    requests=310,
    at_once=0.6,
    busy=0.18,
    flushes={"idle": 100},
)
FULL = replace(SPARSE, rows=6400, parts=6400, busy=0.99, queued=0.1, flushes={"full": 100})
BUSY = replace(SPARSE, busy=0.9, queued=9e-3)
CURVE = ((1.0, 2e-3), (64.0, 8e-3))


def facts(window: Window = SPARSE, **more: Any) -> Facts:
    return Facts(window=window, **more)


TABLE = [
    ("not_ready", facts(not_ready="loading: warm-up"), "does not serve (loading: warm-up)", ""),
    (
        "pipeline",
        facts(Window(seconds=9, requests=125, expired=23), steps=("rough", "exact")),
        "no batches of its own: its steps ask rough, exact, whose own batches",
        "",
    ),
    ("pipeline", facts(steps=()), "A pipeline has no batches of its own.", ""),
    ("no_traffic", facts(Window()), "No request has come yet", ""),
    (
        "refused",
        facts(Window(seconds=1, refused={"predicted_late": 7})),
        "No batch was sent, because every request was refused or dropped: 7 rows by predicted_late",
        "",
    ),
    (
        "running",
        facts(Window(seconds=1, batches=1), running=1),
        "first batch still runs: 1 row",
        "",
    ),
    (
        "failing",
        facts(replace(BUSY, failed=30, flushes={"idle": 50, "isolate": 50})),
        "50 % of them are parts of failed ones: 30 batches failed",
        "Mend the model",
    ),
    (
        "failing",
        facts(replace(SPARSE, failed=100)),
        "Batches average 3.1 of 64 rows, and 100 % of them failed.",
        "Mend the model",
    ),
    (
        "failing",
        facts(Window(), hook_exceptions=40),
        "No batch was sent: preprocess has raised 40 exceptions.",
        "Mend the model",
    ),
    ("instances_lost", facts(alive=0), "because 0 of 1 instances take batches", ""),
    ("refused", facts(Window(seconds=1)), "No batch was sent lately: the log says", ""),
    (
        "capacity",
        facts(FULL, times=CURVE, double=14e-3),
        "64 of 64 rows because they are full, and the model is busy 99 % of the time: capacity is "
        "reached, at 640 rows/s",
        "Raise max_batch_size: twice 64 rows are likely to take 1.8 times as long",
    ),
    ("capacity", facts(FULL, times=CURVE, double=16e-3), "capacity is reached", "more instances"),
    ("full", facts(replace(FULL, busy=0.4)), "full, though the model is idle 60 %", ""),
    (
        "large_requests",
        facts(replace(FULL, rows=4000, parts=100)),
        "requests of 40 rows do not fit together into one batch",
        "at most 32 rows a request",
    ),
    (
        "lengths",
        facts(replace(BUSY, flushes={"shape": 98, "idle": 2}, real=950, padded=1000)),
        "rows of unequal length are cut into the batches that take the least time together: 98 % "
        "of the batches left rows of other lengths behind, and 5 % of what batches hold is padding",
        "",
    ),
    (
        "shapes",
        facts(replace(BUSY, flushes={"shape": 80, "idle": 20}), shapes=12),
        "rows of different shapes cannot share a batch: there are 12 shapes, and 80 %",
        "pad or resize",
    ),
    (
        "deadlines",
        facts(replace(BUSY, refused={"predicted_late": 155}, expired=155)),
        "deadlines are tight: 50 % of the rows were refused or dropped as too late",
        "longer deadlines",
    ),
    (
        "deadlines",
        facts(replace(BUSY, flushes={"deadline": 60, "waited": 40}), policy="delay"),
        "60 % of the batches were sent early to be in time",
        "longer deadlines",
    ),
    (
        "delay",
        facts(replace(SPARSE, flushes={"waited": 100}), policy="delay"),
        "policy delay sends what is there when the oldest request has waited 5 ms",
        "Policy eager answers sooner",
    ),
    (
        "delay",
        facts(replace(BUSY, flushes={"waited": 100}), policy="delay"),
        "policy delay",
        "longer max_delay_ms",
    ),
    (
        "deferred",
        facts(replace(SPARSE, flushes={"deadline": 90, "full": 10}), policy="deferred"),
        "policy deferred starts each at the last moment that meets its deadlines, 100 ms (slo_ms) "
        "or less, and the model is idle 82 % of the time",
        "Policy slo answers sooner",
    ),
    (
        "loop",
        facts(replace(SPARSE, loop_busy=0.97)),
        "the loop is the bottleneck, not the model",
        "Make requests cheaper",
    ),
    ("loop", facts(replace(FULL, busy=0.1, loop_busy=0.8)), "the loop is the", "Make requests"),
    (
        "closed_loop",
        facts(replace(BUSY, at_once=4.2, queued=0.0)),
        "few clients in closed loop, each of which waits for its answer before it sends again: the "
        "model has about 4.2 requests at a time",
        "send more at once",
    ),
    ("closed_loop", facts(BUSY, returning=True, wait=6e-4), "closed loop", "send more at once"),
    ("closed_loop", facts(replace(BUSY, queued=17e-3)), "closed loop", "send more at once"),
    ("bulk", facts(replace(SPARSE, flushes={"bulk": 100})), "of priority bulk", ""),
    (
        "sparse",
        facts(replace(SPARSE, parts=120)),
        "Batches average 3.1 of 64 rows because requests arrive one at a time, each of about 2.6 "
        "rows, and the model is idle 82 % of the time: more concurrency would fill them; nothing "
        "is wrong.",
        "",
    ),
    ("sparse", facts(), "because requests arrive about 3.1 at once and the model is idle 82 %", ""),
    ("steady", facts(BUSY), "31 rows/s come, and the model is busy 90 % of the time", ""),
]


@pytest.mark.parametrize(
    ("situation", "known", "because", "change"),
    TABLE,
    ids=[f"{number}-{row[0]}" for number, row in enumerate(TABLE)],
)
def test_a_situation_has_its_words(situation: str, known: Facts, because: str, change: str) -> None:
    explanation = explain(known)
    assert explanation.situation == situation
    assert because in explanation.because[0]
    assert (change in " ".join(explanation.change)) if change else explanation.change == []


def test_every_situation_stands_in_the_table() -> None:
    assert {row[0] for row in TABLE} == {situation.name for situation in SITUATIONS}


@pytest.mark.parametrize(
    ("known", "because", "change"),
    [
        (
            facts(BUSY, returning=True, wait=6e-4, longest_wait=2e-3),
            "until 0.6 ms after the batch before, never above 2 ms. Such a wait came before 0 %",
            "",
        ),
        (facts(BUSY, returning=True), "so soon after their answers that no wait", ""),
        (facts(BUSY, paused=True), "have not brought more answers", ""),
        (facts(BUSY, max_delay=0.0), "", "max_delay_ms: 0 switches the learned wait off"),
        (facts(BUSY, instances=3, alive=3), "3 instances take from one queue", ""),
        (facts(instances=3, alive=2), "2 of 3 instances take batches", ""),
        (facts(replace(BUSY, queued=17e-3)), "Half of the clients wait", ""),
        (
            facts(ceiling_rows=32),
            "at most 32 rows instead of 64, because larger ones did not fit",
            "",
        ),
        (facts(ceiling_rows=32), "", "Free memory of the device"),
        (
            facts(model_rows=1, ceiling_rows=1),
            "itself takes at most 1 row at a time",
            "a free first axis",
        ),
        (facts(replace(SPARSE, expired=10)), "Deadlines: 3 % of the rows", ""),
        (facts(replace(SPARSE, refused={"queue_full": 310})), "full for 50 % of the rows", ""),
        (
            facts(replace(SPARSE, flushes={"idle": 9, "shape": 1}), shapes=2),
            "there are 2 shapes",
            "",
        ),
        (
            facts(replace(SPARSE, flushes={"idle": 9, "shape": 1}, real=60, padded=100)),
            "40 % of what batches hold is padding",
            "",
        ),
        (
            facts(replace(SPARSE, flushes={"idle": 9, "retry": 1})),
            "10 % of the batches are parts of failed ones",
            "Mend the model",
        ),
        (
            facts(times=CURVE),
            "one of 64 rows takes 8 ms: a row is 16 times cheaper in the larger one",
            "",
        ),
        (facts(times=((1.0, 1e-3), (640.0, 2e-3))), "a row is 320 times cheaper", ""),
        (
            facts(times=((1.0, 2e-4), (64.0, 1e-5))),
            "one of 64 rows no longer: a row is 64 times cheaper",
            "",
        ),
        (facts(times=((1.0, 1e-3), (64.0, 64e-3))), "make a row of this model hardly cheaper", ""),
        (
            facts(replace(SPARSE, ended=40.0)),
            "No request has come for 40 s; this is about 10 s",
            "",
        ),
    ],
)
def test_what_is_true_besides_is_said(known: Facts, because: str, change: str) -> None:
    explanation = explain(known)
    assert because in " ".join(explanation.because[1:])
    assert change in " ".join(explanation.change)


def test_numbers_are_as_people_write_them() -> None:
    assert (number(3.14), number(4.0), number(1234.5)) == ("3.1", "4", "1,234")
    assert [percent(share) for share in (0.0, 0.001, 0.824, 0.9999, 1.0)] == [
        "0 %",
        "under 1 %",
        "82 %",
        "over 99 %",
        "100 %",
    ]
    assert [time_text(each) for each in (0.00425, 0.99999, 12.34, 150.0, 4000.0)] == [
        "4.25 ms",
        "1 s",
        "12.3 s",
        "2.5 min",
        "1.1 h",
    ]
    assert (counted(1, "row"), counted(2000, "batch")) == ("1 row", "2,000 batches")
    assert (several(1.04, "request"), several(3.14, "request")) == ("1 request", "3.1 requests")


@pytest.mark.parametrize(
    "wrong", [facts(replace(SPARSE, failed=5)), facts(instances=2, alive=1)], ids=["batch", "copy"]
)
def test_nothing_is_said_to_be_well_where_something_is_wrong(wrong: Facts) -> None:
    assert "nothing is wrong" in explain(facts()).because[0]
    told = explain(wrong)
    assert told.situation == "sparse"
    assert "nothing is wrong" not in " ".join(told.because)
    assert any("5 % of the batches failed" in text or "1 of 2" in text for text in told.because)
