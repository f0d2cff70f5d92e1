"""The words are right under real loads: the scheduler of the settings on a clock, a second a mark.

Batches take 4 ms + 0.25 ms a row, at most 32 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from twisted.internet.task import Clock, LoopingCall

from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.history import STEP_S
from batcher.core.request import Parameters
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError
from batcher.serving.assembly import build_scheduler
from batcher.serving.monitoring.explaining import Explanation, explain
from batcher.serving.monitoring.facts import Facts, facts_at
from tests.support.models import RecordingModel, checked, model_spec, tensor
from tests.support.scheduling import FREE_SPEC, request
from tests.support.simulation import SimulatedDevice, ignore_changes

BACK_S = 6e-4
"""Most seconds until a client of a closed loop sends again."""

PADDED_SPEC = model_spec(
    inputs=(tensor("x", shape=(-1,), pad=0.0),), outputs=(tensor("y", shape=(-1,), unpads=True),)
)


def seconds(rows: int) -> float:
    return 4e-3 + 0.25e-3 * rows


class Load:
    """A model under load on a clock."""

    def __init__(self, spec: ModelSpec = FREE_SPEC, **settings: Any) -> None:
        self.clock, self.metrics = Clock(), ModelMetrics("m", "1")
        self.sending = True
        self.settings = ModelSettings(**{"max_batch_size": 32, **settings})
        model = RecordingModel(spec)
        model.predict = lambda inputs: {"y": inputs["x"]}  # type: ignore[method-assign]
        device = SimulatedDevice(checked(model), self.clock, seconds)
        self.scheduler = build_scheduler(self.settings, spec, [device], self.clock, self.metrics)
        device.start(self.scheduler.deliver, ignore_changes)
        self.scheduler.loaded({rows: seconds(rows) for rows in (1, 2, 4, 8, 16, 32)})
        marks = LoopingCall(lambda: self.metrics.history.note(self.mark()))
        marks.clock = self.clock
        marks.start(STEP_S)

    def mark(self) -> Any:
        return self.metrics.mark(self.clock.seconds(), 0.0)

    def send(self, width: int = 4, allowed: float | None = None) -> Any:
        deadline = None if allowed is None else self.clock.seconds() + allowed
        values = np.zeros((1, width), np.float32)
        try:
            sent = self.scheduler.submit(request(values, Parameters(deadline=deadline)))
        except BatcherError:
            return None
        return sent.addErrback(lambda failure: failure.trap(BatcherError) and None)

    def by_chance(self, rate: float, send: Callable[[], object]) -> None:
        random = Random(1)

        def next_one() -> None:
            send()
            self.clock.callLater(random.expovariate(rate), next_one)

        self.clock.callLater(0, next_one)

    def clients(self, number: int) -> None:
        random = Random(1)

        def client() -> None:
            if self.sending:
                self.send().addCallback(
                    lambda _: self.clock.callLater(random.uniform(0, BACK_S), client)
                )

        for _ in range(number):
            self.clock.callLater(random.uniform(0, seconds(number)), client)

    def run(self, until: float) -> None:
        while (due := min(call.getTime() for call in self.clock.getDelayedCalls())) < until:
            self.clock.advance(due - self.clock.seconds())

    def explained(self, until: float = 3.0) -> tuple[Facts, Explanation]:
        self.run(until)
        known = self.metrics.history, self.settings, self.scheduler, self.settings.instances
        facts = facts_at(self.mark(), *known)
        return facts, explain(facts)


def test_sparse_requests_find_the_model_idle() -> None:
    load = Load()
    load.by_chance(40, load.send)
    facts, (situation, because, change) = load.explained()
    assert situation == "sparse"
    assert 0.1 < facts.window.busy < 0.25
    assert "because requests arrive one at a time and the model is idle 8" in because[0]
    assert because[0].endswith("more concurrency would fill them; nothing is wrong.")
    assert change == []


def test_a_closed_loop_of_few_clients_is_recognised_with_its_learned_wait() -> None:
    load = Load()
    load.clients(8)
    facts, (situation, because, change) = load.explained()
    assert situation == "closed_loop"
    assert "few clients in closed loop" in because[0]
    assert facts.returning
    assert 7 < facts.window.rows_per_batch <= 8
    assert 7 < facts.window.at_once <= 8
    assert any("a free model waits for them" in text for text in because)
    assert 0 < facts.wait <= facts.longest_wait <= seconds(1) * 2.02
    assert any("send more at once" in text for text in change)


def test_one_client_alone_is_a_closed_loop_too() -> None:
    load = Load()
    load.clients(1)
    assert load.explained()[1].situation == "closed_loop"


def test_without_a_wait_the_halves_of_a_closed_loop_are_told_what_switches_it_off() -> None:
    load = Load(max_delay_ms=0)
    load.clients(16)
    facts, (situation, _, change) = load.explained()
    assert situation == "closed_loop"
    assert 7.5 < facts.window.rows_per_batch < 8.5
    assert any("max_delay_ms: 0 switches the learned wait off" in text for text in change)


def test_batches_that_start_as_late_as_they_may_are_no_sign_of_tight_deadlines() -> None:
    load = Load(policy="deferred", slo_ms=40)
    load.by_chance(400, load.send)
    facts, (situation, because, _) = load.explained()
    assert situation == "deferred"
    assert facts.window.share("deadline") > 0.9
    assert facts.window.rows_per_batch > 8
    assert "at the last moment that meets its deadlines, 40 ms (slo_ms)" in because[0]


def test_a_steady_load_at_random_is_no_closed_loop() -> None:
    load = Load()
    load.by_chance(800, load.send)
    facts, (situation, because, _) = load.explained()
    assert situation == "steady"
    assert 0.7 < facts.window.busy < 1
    assert "rows/s come" in because[0]


def test_a_saturated_model_is_at_its_capacity() -> None:
    load = Load(max_queue_rows=200)
    load.by_chance(4000, load.send)
    facts, (situation, because, change) = load.explained()
    assert situation == "capacity"
    assert facts.window.rows_per_batch > 31.5
    assert "capacity is reached" in because[0]
    assert any("The queue was full for" in text for text in because)
    assert "instances" in change[0]
    assert "Raise max_batch_size: twice 32 rows are likely to take 1.7 times as long." in change


def test_rows_of_many_shapes_cannot_share_batches() -> None:
    load, random = Load(), Random(2)
    load.by_chance(300, lambda: load.send(width=random.randint(1, 12)))
    facts, (situation, because, change) = load.explained()
    assert situation == "shapes"
    assert facts.shapes == 12
    assert "there are 12 shapes" in because[0]
    assert any("pad" in text for text in change)


def test_rows_of_unequal_length_are_cut_into_batches_and_the_padding_is_told() -> None:
    load, random = Load(PADDED_SPEC, max_batch_elements=100), Random(2)
    load.by_chance(500, lambda: load.send(width=random.choice((2, 40))))
    facts, (situation, because, change) = load.explained()
    assert situation == "lengths"
    assert 0 <= facts.window.padding < 0.3
    assert "rows of unequal length are cut" in because[0]
    assert "of what batches hold is padding; nothing is wrong." in because[0]
    assert change == []


def test_tight_deadlines_cut_batches() -> None:
    load = Load()
    load.by_chance(1500, lambda: load.send(allowed=9e-3))
    facts, (situation, because, change) = load.explained()
    assert situation == "deadlines"
    assert facts.window.lost > 0.2
    assert "deadlines are tight" in because[0]
    assert "longer deadlines" in change[0]


def test_the_words_are_of_the_load_that_was_there_last() -> None:
    load = Load()
    load.run(20)
    load.clients(40)
    load.run(23)
    load.sending = False
    facts, (situation, because, _) = load.explained(43)
    assert situation == "capacity"
    assert facts.window.busy > 0.95
    assert because[1] == "No request has come for 19 s; this is about 3 s before that."
