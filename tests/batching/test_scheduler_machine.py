"""Random lives: any sizes, shapes, order, cancellations, deadlines, failures, lost workers.

Every request ends exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import CancelledError

from batcher.batching.policies.bulk import BulkLast
from batcher.batching.policies.delay import Delay
from batcher.batching.policies.eager import Eager
from batcher.batching.worker import Condition
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.errors import (
    DeadlineExceeded,
    Draining,
    ModelError,
    ModelNotReady,
    PredictedLate,
    QueueFull,
    TooLarge,
    Unavailable,
    WorkerLost,
)
from tests.support.scheduling import Answer, Harness, own_rows, request

MAX_ROWS = 12
MAX_BATCH = 4
BULK = 4


class Request:
    """A request as the test sees it: its rows, and what it has been through."""

    def __init__(self, values: Array, answer: Answer, deadline: float) -> None:
        self.values = values
        self.answer = answer
        self.deadline = deadline
        self.cancelled = False
        self.ended_at: float | None = None


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        delay=st.sampled_from([None, 2.0]),
        places=st.sampled_from([1, 2]),
        cost=st.sampled_from([0.0, 0.25]),
        soon=st.booleans(),
        instances=st.sampled_from([1, 1, 2, 3]),
        retry=st.booleans(),
        ageing=st.sampled_from([inf, 1.0]),
        smaller_first=st.sampled_from([0.0, 1.0]),
    )
    def begin(
        self,
        delay: float | None,
        places: int,
        cost: float,
        soon: bool,
        instances: int,
        retry: bool,
        ageing: float,
        smaller_first: float,
    ) -> None:
        policy = BulkLast(Eager(MAX_BATCH) if delay is None else Delay(MAX_BATCH, delay), 1.0)
        self.harness = Harness(
            policy,
            max_rows=MAX_ROWS,
            predict=self.predict,
            places=places,
            timeout=16.0,
            cost=lambda rows, group: cost * rows,
            soon=soon,
            retry=retry,
            instances=instances,
            ageing=ageing,
            smaller_first=smaller_first,
            bulk_level=BULK,
        )
        self.workers = [self.harness.worker, *self.harness.others]
        self.alive = [True] * instances
        self.given_up = False
        self.interrupted: dict[int, int] = {}
        self.lost_rows = 0
        self.not_ready = 0
        self.requests: list[Request] = []
        self.failing: set[int] = set()
        self.ran: set[int] = set()
        self.fail_next = False
        self.refused = 0
        self.run_rows = 0
        self.failed_batches = 0

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.run_rows += len(inputs["x"])
        for row in inputs["x"]:
            self.ran.add(int(row[0]))
            owner = self.requests[int(row[0])]
            assert owner.values.shape[1] == inputs["x"].shape[1]
        if self.fail_next:
            self.fail_next = False
            self.failed_batches += 1
            self.failing |= {int(row[0]) for row in inputs["x"]}
            raise ValueError("this batch fails")
        return {"y": inputs["x"] * 2}

    @rule(
        count=st.integers(1, 9),
        width=st.sampled_from([2, 3]),
        priority=st.integers(0, BULK),
        lasts=st.sampled_from([None, 0.0, 0.5, 1.0, 4.0]),
    )
    def submit(self, count: int, width: int, priority: int, lasts: float | None) -> None:
        values = own_rows(len(self.requests), count, width)
        now = self.harness.clock.seconds()
        parameters = Parameters(None if lasts is None else now + lasts, priority)
        if self.given_up:
            with pytest.raises(ModelNotReady):
                self.harness.scheduler.submit(request(values, parameters))
            self.not_ready += count
            return
        room = MAX_ROWS // 2 if priority == BULK else MAX_ROWS
        if self.harness.scheduler.queue_rows + count > room:
            with pytest.raises(QueueFull if count <= room else TooLarge):
                self.harness.scheduler.submit(request(values, parameters))
            self.refused += count if count <= room else 0
            return
        answer = Answer(self.harness.scheduler.submit(request(values, parameters)))
        submitted = Request(values, answer, now + (16.0 if lasts is None else lasts))
        self.requests.append(submitted)

        def ended(_: None) -> None:
            submitted.ended_at = self.harness.clock.seconds()

        answer.deferred.addCallback(ended)

    @precondition(lambda self: not self.given_up)
    @rule()
    def submit_more_than_can_ever_wait(self) -> None:
        with pytest.raises(TooLarge):
            self.harness.scheduler.submit(request(own_rows(0, MAX_ROWS + 1, 2)))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.requests))
        chosen.cancelled |= chosen.answer.waiting
        chosen.answer.deferred.cancel()

    @rule(passes=st.sampled_from([0.0, 0.0, 0.25, 0.5, 3.0]))
    def turn(self, passes: float) -> None:
        self.harness.turn(passes)

    @precondition(lambda self: any(worker.batches for worker in self.workers))
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def perform(self, data: st.DataObject, fails: bool) -> None:
        self.fail_next = fails
        data.draw(st.sampled_from([worker for worker in self.workers if worker.batches])).perform()

    @precondition(lambda self: any(self.alive))
    @rule(data=st.data(), condition=st.sampled_from([Condition.DEAD, Condition.RESTARTING]))
    def lose(self, data: st.DataObject, condition: Condition) -> None:
        index = data.draw(
            st.sampled_from([index for index, alive in enumerate(self.alive) if alive])
        )
        worker = self.workers[index]
        self.alive[index] = False
        batches = [batch for batch, _ in worker.batches]
        self.failed_batches += len(batches)
        self.lost_rows += sum(batch.rows for batch in batches)
        for part in batches[0].parts if batches else ():
            number = int(part.inputs["x"][0, 0])
            self.interrupted[number] = self.interrupted.get(number, 0) + 1
        worker.lose(condition, "gone")
        self.given_up = self.harness.workers.condition is Condition.DEAD

    @precondition(lambda self: not all(self.alive))
    @rule(data=st.data())
    def revive(self, data: st.DataObject) -> None:
        index = data.draw(
            st.sampled_from([index for index, alive in enumerate(self.alive) if not alive])
        )
        self.alive[index] = True
        self.given_up = False
        self.workers[index].revive()

    @invariant()
    def nothing_is_lost(self) -> None:
        harness = self.harness
        harness.check()
        assert harness.scheduler.pending == sum(each.answer.waiting for each in self.requests)
        assert (
            harness.metrics.batch_size.total
            == self.run_rows + self.lost_rows + harness.scheduler.in_flight_rows
        )
        assert harness.metrics.failed_batches == self.failed_batches
        assert harness.metrics.rejected_rows.get("queue_full", 0) == self.refused
        assert harness.metrics.rejected_rows.get("model_not_ready", 0) == self.not_ready
        assert not (self.given_up and harness.scheduler.pending), (
            "nobody waits for what will not come"
        )
        assert not any(
            each.answer.waiting and each.deadline < harness.clock.seconds()
            for each in self.requests
        )

    @invariant()
    def bulk_alone_waits_for_something_that_will_happen(self) -> None:
        harness = self.harness
        if harness.queue.bulk.rows and not (
            harness.queue.rows or harness.worker.batches or harness.soon
        ):
            assert harness.clock.getDelayedCalls(), "or nobody would ever look again"

    @invariant()
    def each_has_what_is_its_own(self) -> None:
        for number, each in enumerate(self.requests):
            assert len(each.answer.fired) <= 1
            if each.answer.waiting:
                continue
            result = each.answer.fired[0]
            if isinstance(result, InferenceResponse):
                assert not each.cancelled
                np.testing.assert_array_equal(result.outputs["y"], each.values * 2)
            elif each.cancelled:
                assert isinstance(each.answer.error, CancelledError)
            elif isinstance(each.answer.error, ModelError):
                assert number in self.failing, "its own rows were in a batch that failed"
            elif isinstance(each.answer.error, WorkerLost | ModelNotReady):
                assert isinstance(each.answer.error, Unavailable)
                has_run = number in self.interrupted or number in self.ran
                assert (each.answer.error.retry_after == 0) == has_run, (
                    "only what surely has not run is to come again"
                )
            else:
                assert isinstance(each.answer.error, DeadlineExceeded | PredictedLate)
                assert each.ended_at is not None
                assert each.ended_at >= each.deadline - 0.25 * MAX_BATCH, "late, or bound to be"

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        harness = self.harness
        for index, alive in enumerate(self.alive):
            if not alive:
                self.workers[index].revive()
        ended: list[None] = []
        harness.scheduler.drain().addCallback(ended.append)
        with pytest.raises(Draining):
            harness.scheduler.submit(request(own_rows(0, 1, 2)))
        harness.turn()
        while any(worker.batches for worker in self.workers):
            for worker in self.workers:
                if worker.batches:
                    worker.perform()
            harness.turn()
        assert ended == [None]
        assert harness.counts == (0, 0, 0)
        assert all(len(each.answer.fired) == 1 for each in self.requests)
        self.nothing_is_lost()
        self.each_has_what_is_its_own()
        runs = [
            (int(row[0]), int(row[-1])) for batch in harness.model.batches for row in batch["x"]
        ]
        assert len(runs) == len(set(runs)), "no row runs twice to its end"
        assert self.lost_rows or "retry" not in harness.metrics.flushes, (
            "nothing runs again that was not lost"
        )


SchedulerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestAnyLife = SchedulerMachine.TestCase
