"""The weight that a balancer is told, from what a model has done between two looks."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.core.counters import ModelMetrics
from batcher.serving.model_version import ModelState
from batcher.serving.monitoring.server_weight import LOOK_INTERVAL_S, Lateness, ServerWeight

WARMUP = {1: 0.02, 64: 0.02}
"""Seconds of a batch by its rows."""


class Waits:
    """How far behind a model is, as a test says.

    Attributes:
        wait: seconds until one more row would be answered.
        stuck: seconds for which the batch that runs has run.
        learnt: seconds of a batch.
    """

    def __init__(self) -> None:
        self.wait, self.stuck, self.learnt = 0.02, 0.0, 0.02

    def wait_s(self) -> float:
        return self.wait

    def stuck_s(self) -> float:
        return self.stuck

    def batch_s(self, rows: int) -> float:
        return self.learnt


class Model:
    """A version of a model with what a weight asks of it.

    Attributes:
        waits: how far behind it is.
        metrics: its counters.
    """

    def __init__(self, name: str = "m", plan: object = None) -> None:
        self.waits, self.metrics = Waits(), ModelMetrics(name, "1")
        self.key, self.timings = (name, "1"), WARMUP
        self.settings = SimpleNamespace(slo_ms=100.0)
        self.scheduler = SimpleNamespace(backlog=self.waits)
        self.definition = SimpleNamespace(plan=plan)
        self.state = ModelState.READY

    @property
    def accepts(self) -> bool:
        return self.state is ModelState.READY

    def ran(self, count: int, seconds: float, failed: int = 0) -> None:
        """Count batches of one row that took so long each; the first ones have failed."""
        for _ in range(count):
            self.metrics.batch_size.observe(1)
            self.metrics.model_time.observe(seconds)
        self.metrics.failed_batches += failed


class Server:
    """A server of some models, and its weight.

    Attributes:
        now: seconds on the clock.
        ending: whether it is about to end.
        missing: models that are not ready.
    """

    def __init__(self, *models: Model) -> None:
        self.models, self.now, self.ending = [*models], 0.0, False
        self.missing: dict[str, str] = {}
        by_key = {model.key: model.metrics for model in models}
        model: Callable[..., ModelMetrics] = lambda *key: by_key[key]  # noqa: E731
        self.metrics: Any = SimpleNamespace(model=model)
        self.weight = ServerWeight(self)

    def __iter__(self) -> Any:
        return iter(self.models)

    def seconds(self) -> float:
        return self.now

    def unready(self) -> dict[str, str]:
        return self.missing

    def after(self, seconds: float) -> int:
        """Return the weight so many seconds later."""
        self.now += seconds
        return self.weight.percent()


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def server(model: Model) -> Server:
    """Return a server that has been looked at once."""
    server = Server(model)
    assert server.weight.percent() == 100
    return server


def test_a_server_that_answers_as_at_warm_up_gets_its_whole_load(
    server: Server, model: Model
) -> None:
    model.ran(20, 0.02)
    model.waits.wait = 0.04
    assert server.after(0.5) == 100


def test_batches_that_take_ten_times_as_long_leave_the_least_at_the_next_look(
    server: Server, model: Model
) -> None:
    model.ran(2, 0.2)
    assert server.after(0.5) == 1


def test_the_weight_falls_with_the_third_power_of_the_lateness(
    server: Server, model: Model
) -> None:
    model.waits.wait = 0.05
    assert server.after(0.5) == 51
    model.waits.wait = 0.08
    assert server.after(0.5) == 12


def test_what_was_learnt_counts_at_the_pace_of_late(server: Server, model: Model) -> None:
    model.ran(10, 0.03)
    model.waits.wait = 0.04  # by batches of 20 ms: it will be 60 ms
    assert server.after(0.5) == round(100 / 1.5**3)


def test_a_batch_that_does_not_come_back_makes_the_server_slow(
    server: Server, model: Model
) -> None:
    model.waits.stuck = 1.0
    assert server.after(0.5) == 1


def test_a_model_that_fails_at_once_is_not_fast(server: Server, model: Model) -> None:
    model.ran(100, 0.0001, failed=100)
    assert server.after(0.5) == 1


def test_a_worker_that_is_gone_leaves_the_least(server: Server, model: Model) -> None:
    model.waits.wait = inf
    assert server.after(0.5) == 1


def test_a_weight_rises_to_four_times_as_much_in_a_second(server: Server, model: Model) -> None:
    model.ran(2, 0.2)
    assert server.after(0.5) == 1
    assert [server.after(1.0) for _ in range(4)] == [4, 16, 64, 100]


def test_a_server_that_was_not_asked_for_long_has_its_whole_weight(
    server: Server, model: Model
) -> None:
    model.ran(2, 0.2)
    assert server.after(0.5) == 1
    assert server.after(1e6) == 100


def test_several_who_ask_share_a_look(server: Server, model: Model) -> None:
    model.ran(2, 0.2)
    assert server.after(LOOK_INTERVAL_S / 2) == 100
    assert server.after(LOOK_INTERVAL_S / 2) == 1


def test_the_slowest_model_counts_and_a_pipeline_does_not() -> None:
    slow, fast, pipeline = Model("slow"), Model("fast"), Model("all", plan=object())
    server = Server(slow, fast, pipeline)
    assert server.weight.percent() == 100
    fast.ran(20, 0.02)
    slow.ran(2, 0.08)
    pipeline.ran(2, 60.0)
    assert server.after(0.5) == 12


def test_a_server_that_is_not_ready_or_about_to_end_gets_nothing(
    server: Server, model: Model
) -> None:
    server.missing = {"m/1": "loading"}
    assert server.after(0.5) == 0
    server.missing = {}
    assert server.after(0.5) == 100
    server.ending = True
    assert server.after(0.0) == 0


def test_without_a_warm_up_the_time_of_the_settings_is_expected() -> None:
    metrics, waits = ModelMetrics("m", "1"), Waits()
    late = Lateness({}, 0.1, waits, metrics)
    waits.wait = 0.1
    assert late.look() == 1.0
    waits.wait = 0.2
    assert late.look() == 2.0


def test_less_than_ten_milliseconds_is_never_expected() -> None:
    metrics, waits = ModelMetrics("m", "1"), Waits()
    late = Lateness({1: 0.0001}, 0.1, waits, metrics)
    waits.wait = 0.01
    assert late.look() == 1.0


def test_batches_of_more_rows_may_take_as_long_as_they_did_at_warm_up() -> None:
    metrics, waits = ModelMetrics("m", "1"), Waits()
    late = Lateness({1: 0.02, 2: 0.04, 4: 0.08}, 0.1, waits, metrics)
    metrics.batch_size.observe(4)
    waits.wait = 0.16
    assert late.look() == 1.0
