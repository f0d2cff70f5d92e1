"""Several workers of one model: each takes batches when it is free.

What becomes of those of one that is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from batcher.batching.policies.delay import Delay
from batcher.batching.worker import Condition
from batcher.core.spec import Array
from batcher.errors import (
    BatcherError,
    DeadlineExceeded,
    Draining,
    ModelError,
    ModelNotReady,
    PredictedLate,
    Unavailable,
    WorkerLost,
)
from batcher.workers.memory import MemoryWorker
from tests.support.models import double
from tests.support.scheduling import Answer, Harness

DEAD, RESTARTING = Condition.DEAD, Condition.RESTARTING


def held(harness: Harness) -> list[list[int]]:
    """Return the rows of the batches that each worker holds."""
    return [[batch.rows for batch, _ in worker.batches] for worker in workers(harness)]


def workers(harness: Harness) -> list[MemoryWorker]:
    return [harness.worker, *harness.others]


def lose(harness: Harness, index: int, condition: Condition = DEAD) -> None:
    workers(harness)[index].lose(condition, f"worker {index} is gone")
    harness.check()


def revive(harness: Harness, index: int) -> None:
    workers(harness)[index].revive()
    harness.check()


def finish(harness: Harness) -> None:
    """Let all workers run until nothing is left to do."""
    harness.turn()
    while any(worker.batches for worker in workers(harness)):
        for worker in workers(harness):
            if worker.batches:
                worker.perform()
                harness.turn()


def told(answer: Answer) -> tuple[type[BaseException], int]:
    """Return the kind of an answer that is 503, and after how many seconds to come again."""
    error = answer.error
    assert isinstance(error, Unavailable), error
    assert error.http_status == 503
    return type(error), error.retry_after


def test_each_worker_takes_a_batch_when_it_is_free() -> None:
    harness = Harness(instances=3, max_batch_size=4)
    answers = []
    for value in range(3):
        answers.append(harness.submit(value))
        harness.turn()
    assert held(harness) == [[1], [1], [1]]
    answers.append(harness.submit(3))
    harness.turn()
    assert held(harness) == [[1], [1], [1]], "it waits, since none is free"
    harness.others[1].perform()
    harness.check()
    assert held(harness) == [[1], [1], [1]]
    finish(harness)
    assert [answer.values for answer in answers] == [[0], [2], [4], [6]]
    assert harness.counts == (0, 0, 0)


def test_what_waits_goes_to_idle_workers_before_any_holds_two() -> None:
    harness = Harness(instances=3, max_batch_size=2)
    answers = [harness.submit(value) for value in range(10)]
    harness.turn()
    assert held(harness) == [[2, 2], [2, 2], [2]]
    assert harness.metrics.flushes == {"full": 5}
    finish(harness)
    assert [answer.values for answer in answers] == [[2 * value] for value in range(10)]


def test_a_second_place_is_filled_only_by_a_full_batch() -> None:
    harness = Harness(instances=2, max_batch_size=2)
    for value in range(5):
        harness.submit(value)
    harness.turn()
    assert held(harness) == [[2], [2]], "the last one may yet grow"
    harness.submit(5)
    harness.turn()
    assert held(harness) == [[2, 2], [2]]


def test_a_request_of_many_rows_is_run_by_all_workers_and_put_together() -> None:
    harness = Harness(instances=2, max_batch_size=2, places=1)
    answer = harness.submit(1, 2, 3, 4, 5)
    harness.turn()
    assert held(harness) == [[2], [2]]
    harness.others[0].perform()
    finish(harness)
    assert answer.values == [2, 4, 6, 8, 10]


def test_what_waits_for_company_waits_also_where_several_workers_are_idle() -> None:
    harness = Harness(Delay(4, 2.0), instances=2)
    answer = harness.submit(1)
    harness.turn()
    assert held(harness) == [[], []]
    harness.turn(2.0)
    finish(harness)
    assert answer.values == [2]


def test_a_batch_that_had_not_begun_runs_elsewhere_when_its_worker_is_lost() -> None:
    harness = Harness(instances=2, max_batch_size=1)
    answers = [harness.submit(value) for value in range(3)]
    harness.turn()
    assert held(harness) == [[1, 1], [1]]
    lose(harness, 0)
    assert told(answers[0]) == (WorkerLost, 0), "it may have run"
    assert held(harness) == [[], [1, 1]]
    finish(harness)
    assert [answer.values for answer in answers[1:]] == [[2], [4]]
    assert harness.metrics.flushes == {"full": 3, "retry": 1}
    assert (harness.metrics.failed_batches, harness.metrics.failed_rows) == (2, 0)
    assert (harness.metrics.statistics.success.count, harness.metrics.statistics.fail.count) == (
        2,
        1,
    )


def test_a_batch_that_had_begun_runs_once_more_where_that_is_allowed() -> None:
    harness = Harness(instances=2, max_batch_size=1, retry=True)
    answers = [harness.submit(value) for value in range(2)]
    harness.turn()
    lose(harness, 0)
    assert answers[0].waiting
    harness.turn()
    assert held(harness) == [[], [1, 1]]
    revive(harness, 0)
    harness.others[0].perform()
    harness.check()
    assert answers[1].values == [2]
    lose(harness, 1, RESTARTING)
    assert told(answers[0]) == (WorkerLost, 0), "it began twice"
    assert harness.counts == (0, 0, 0)
    assert harness.metrics.flushes == {"full": 2, "retry": 1}


@pytest.mark.parametrize("retry", [False, True])
def test_when_the_last_worker_is_dead_what_waits_fails_and_no_more_is_taken(retry: bool) -> None:
    harness = Harness(instances=2, max_batch_size=1, retry=retry, isolate=True)
    answers = [harness.submit(value) for value in range(6)]
    harness.turn()
    lose(harness, 0)
    assert held(harness) == [[], [1, 1]]
    lose(harness, 1)
    assert harness.counts == (0, 0, 0)
    assert all(not answer.waiting for answer in answers)
    assert {told(answer)[0] for answer in answers} == {WorkerLost, ModelNotReady}
    advice = [told(answer)[1] for answer in answers]
    assert (advice[0], advice[1]) == (0, 0), "these had begun"
    assert all(advice[number] >= 1 for number in (2, 3, 4, 5))
    with pytest.raises(ModelNotReady, match="not ready: worker 1 is gone") as refused:
        harness.submit(9, 9)
    assert refused.value.retry_after == 5
    assert harness.metrics.rejected_rows == {"model_not_ready": 2}
    assert harness.metrics.statistics.fail.count == 6


def test_a_worker_that_comes_back_serves_again() -> None:
    harness = Harness(instances=2, max_batch_size=1)
    lose(harness, 0)
    lose(harness, 1)
    revive(harness, 1)
    answers = [harness.submit(value) for value in (1, 2, 3)]
    harness.turn()
    assert held(harness) == [[], [1, 1]]
    revive(harness, 0)
    assert held(harness) == [[1], [1, 1]]
    finish(harness)
    assert [answer.values for answer in answers] == [[2], [4], [6]]


def test_while_workers_are_started_again_requests_wait_and_run_when_they_are_back() -> None:
    harness = Harness(instances=2, max_batch_size=1)
    answers = [harness.submit(value) for value in range(3)]
    harness.turn()
    lose(harness, 0, RESTARTING)
    lose(harness, 1, DEAD)
    assert (told(answers[0]), told(answers[1])) == ((WorkerLost, 0), (WorkerLost, 0))
    later = harness.submit(7)
    harness.turn(1.0)
    assert (answers[2].waiting, later.waiting) == (True, True)
    assert harness.counts == (2, 1, 0)
    revive(harness, 0)
    finish(harness)
    assert (answers[2].values, later.values) == ([4], [14])


def test_what_ran_in_part_is_not_told_to_come_again_when_the_rest_cannot_run() -> None:
    harness = Harness(max_batch_size=2, places=1)
    cut, fresh = harness.submit(1, 2, 3), harness.submit(4)
    harness.turn()
    harness.perform()
    lose(harness, 0, RESTARTING)
    cut_too, other = harness.submit(5), harness.submit(6)
    lose(harness, 0, DEAD)
    assert told(cut) == (WorkerLost, 0)
    assert told(fresh) == (WorkerLost, 0), "it had begun beside the rest of the other"
    assert told(cut_too) == told(other) == (ModelNotReady, 5)


def test_what_waits_to_run_again_is_not_told_to_come_again_if_it_has_run() -> None:
    def raises(inputs: Mapping[str, Array]) -> dict[str, Any]:
        raise ValueError("all of them")

    harness = Harness(predict=raises, isolate=True, max_batch_size=4, places=1)
    answers = [harness.submit(value) for value in range(4)]
    harness.turn()
    harness.perform()
    harness.check()
    lose(harness, 0, RESTARTING)
    assert [answer.waiting for answer in answers] == [False, False, True, True]
    lose(harness, 0, DEAD)
    assert [told(answer) for answer in answers] == [(WorkerLost, 0)] * 2 + [(ModelNotReady, 0)] * 2


def test_what_ran_in_part_is_not_told_to_come_again_when_it_is_late() -> None:
    harness = Harness(max_batch_size=1, places=1, cost=lambda rows, group: 4.0)
    cut, first = harness.submit(1, 2, deadline=6.0), harness.submit(3)
    harness.turn()
    harness.clock.pump([3.0])
    harness.perform()
    assert told(cut) == (PredictedLate, 0)
    finish(harness)
    assert first.values == [6]


@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_who_gives_up_while_no_worker_is_there_does_not_run_later(way: str) -> None:
    harness = Harness(instances=2, max_batch_size=1, places=2)
    answers = [harness.submit(value, deadline=20.0 if value else 1.0) for value in range(5)]
    answers.append(harness.submit(5, deadline=1.0))
    harness.turn()
    lose(harness, 0, RESTARTING)
    lose(harness, 1, RESTARTING)
    if way == "cancel":
        harness.cancel(answers[2])
        harness.cancel(answers[4])
        assert [type(answers[number].error) for number in (2, 4)] == [CancelledError] * 2
    harness.turn(2.0)
    assert isinstance(answers[5].error, DeadlineExceeded)
    revive(harness, 0)
    finish(harness)
    given_up = {2, 4} if way == "cancel" else set()
    ran = {int(row[0]) for batch in harness.model.batches for row in batch["x"]}
    assert not ran & ({5} | given_up)
    assert answers[3].values == [6]
    assert harness.counts == (0, 0, 0)


def test_a_deadline_in_flight_on_a_lost_worker_is_answered_once() -> None:
    harness = Harness(instances=2, retry=True)
    answer = harness.submit(1, deadline=1.0)
    harness.turn()
    harness.turn(2.0)
    assert isinstance(answer.error, DeadlineExceeded)
    lose(harness, 0)
    finish(harness)
    assert len(answer.fired) == 1
    assert harness.model.batches == [], "nobody waits for it"


def test_drain_waits_for_what_runs_elsewhere() -> None:
    harness = Harness(instances=2, max_batch_size=1)
    answers = [harness.submit(value) for value in range(3)]
    harness.turn()
    ended: list[None] = []
    harness.scheduler.drain().addCallback(ended.append)
    lose(harness, 0)
    assert ended == []
    finish(harness)
    assert ended == [None]
    assert (answers[1].values, answers[2].values) == ([2], [4])


@pytest.mark.parametrize("condition", [DEAD, RESTARTING])
def test_a_drain_does_not_wait_for_what_will_never_run(condition: Condition) -> None:
    harness = Harness(max_batch_size=1)
    answers = [harness.submit(value) for value in range(4)]
    harness.turn()
    ended: list[None] = []
    harness.scheduler.drain().addCallback(ended.append)
    lose(harness, 0, condition)
    assert bool(ended) is (condition is DEAD)
    harness.scheduler.fail_all(Draining("stopped", retry_after=0))
    assert ended == [None]
    assert all(len(answer.fired) == 1 for answer in answers)
    assert harness.counts == (0, 0, 0)
    assert harness.clock.getDelayedCalls() == []


def test_a_drain_is_over_when_the_last_request_has_waited_too_long_for_its_worker() -> None:
    harness = Harness(cost=lambda rows, group: 8.0)
    lose(harness, 0, RESTARTING)
    answer, drained = harness.submit(1, deadline=4.0), harness.scheduler.drain()
    assert not drained.called
    revive(harness, 0)
    assert isinstance(answer.error, PredictedLate)
    assert drained.called


def test_the_search_for_the_rows_at_fault_uses_all_idle_workers() -> None:
    def picky(inputs: Mapping[str, Array]) -> dict[str, Any]:
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return double(inputs)

    harness = Harness(predict=picky, isolate=True, instances=2, max_batch_size=4)
    answers = [harness.submit(value) for value in (-1, 1, 2, 3)]
    harness.turn()
    harness.perform()
    assert held(harness) == [[2], [2]]
    finish(harness)
    assert isinstance(answers[0].error, ModelError)
    assert [answer.values for answer in answers[1:]] == [[2], [4], [6]]


def test_what_comes_back_from_one_worker_goes_to_all_that_are_idle() -> None:
    harness = Harness(instances=3, max_batch_size=1, retry=True)
    answers = [harness.submit(value) for value in (1, 2)]
    lose(harness, 1)
    lose(harness, 2)
    harness.turn()
    assert held(harness) == [[1, 1], [], []]
    lose(harness, 0, RESTARTING)
    assert harness.counts == (2, 0, 0)
    revive(harness, 1)
    revive(harness, 2)
    assert held(harness) == [[], [1], [1]]
    finish(harness)
    assert [answer.values for answer in answers] == [[2], [4]]


def test_an_answer_may_submit_while_its_worker_is_being_lost() -> None:
    harness = Harness(instances=2, max_batch_size=1)
    answers = [harness.submit(value) for value in (1, 2, 3)]
    answers[0].deferred.addBoth(lambda _: answers.append(harness.resubmit(4)))
    harness.turn()
    lose(harness, 0)
    finish(harness)
    assert [answer.values for answer in answers[1:]] == [[4], [6], [8]]


def test_an_answer_that_tries_again_while_the_last_worker_is_being_lost_is_refused() -> None:
    harness = Harness(max_batch_size=1)
    answers = [harness.submit(value) for value in range(4)]
    refused: list[BatcherError] = []

    def again(_: object) -> None:
        with pytest.raises(ModelNotReady) as raised:
            harness.resubmit(9)
        refused.append(raised.value)

    for answer in answers:
        answer.deferred.addBoth(again)
    harness.turn()
    lose(harness, 0)
    assert len(refused) == 4
    assert harness.counts == (0, 0, 0)
