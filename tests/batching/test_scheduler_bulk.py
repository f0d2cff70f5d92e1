"""Bulk beside interactive requests: step by step, and what it costs them in simulated time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batcher.batching.policies.bulk import BulkLast
from batcher.batching.policies.eager import Eager
from batcher.batching.queue import BatchQueue
from batcher.errors import DeadlineExceeded, QueueFull, TooLarge
from tests.support.scheduling import Harness
from tests.support.simulation import SimulatedLoad

BULK = 4
AFTER = 1.0
SECONDS = 4.0


def harness_of(**more: object) -> Harness:
    """Return a harness with batches of 4 rows, in which bulk waits for `AFTER` s of silence."""
    return Harness(BulkLast(Eager(4), AFTER), bulk_level=BULK, **more)  # type: ignore[arg-type]


def test_bulk_rides_along_in_a_batch_of_others_behind_them() -> None:
    harness = harness_of()
    riding, other = harness.submit(1, 2, priority=BULK), harness.submit(3)
    harness.turn()
    assert harness.perform() == [3, 1, 2]
    assert (other.values, riding.values) == ([6], [2, 4])


def test_left_alone_bulk_is_answered_by_nothing_but_the_time_that_passes() -> None:
    harness = harness_of()
    harness.submit(1)
    harness.turn()
    waiting = harness.submit(2, priority=BULK)
    harness.perform()
    harness.turn(0.9)
    assert harness.counts == (1, 1, 0)
    harness.turn(0.2)
    assert harness.counts == (1, 0, 1)
    harness.finish()
    assert waiting.values == [4]
    assert harness.metrics.flushes == {"idle": 1, "bulk": 1}


def test_a_request_that_comes_meanwhile_makes_bulk_wait_anew() -> None:
    harness = harness_of()
    harness.submit(1)
    harness.turn()
    harness.perform()
    waiting = harness.submit(*range(4), priority=BULK)
    harness.turn(0.75)
    harness.submit(5)
    harness.turn()
    harness.perform()
    harness.turn(0.75)
    assert waiting.waiting
    assert not harness.worker.batches
    harness.turn(0.25)
    assert harness.perform() == [0, 1, 2, 3]


def test_bulk_that_follows_upon_bulk_needs_nobody_to_wake_it() -> None:
    harness = harness_of()
    answers = [harness.submit(value, priority=BULK) for value in range(10)]
    harness.turn()
    for left in (6, 2, 0):
        assert harness.scheduler.queue_rows == left
        harness.perform()
    assert not any(answer.waiting for answer in answers)


def test_bulk_counts_in_the_queues_bounds_and_in_what_is_shown() -> None:
    harness = harness_of(max_rows=6)
    harness.submit(1)
    harness.turn()
    harness.submit(2, 3, 4, priority=BULK)
    assert (harness.scheduler.queue_rows, harness.scheduler.queue_bytes) == (3, 48)
    with pytest.raises(QueueFull, match="the queue is full: 3 of 6 rows, 48 of"):
        harness.submit(5, 6, 7, 8)


def test_a_flood_of_bulk_leaves_half_of_the_queue_to_others() -> None:
    harness = harness_of(max_rows=8)
    harness.submit(1)
    harness.turn()
    harness.submit(2, 3, 4, priority=BULK)
    with pytest.raises(QueueFull, match="the queue is full for bulk: 3 of 4 rows"):
        harness.submit(5, 6, priority=BULK)
    with pytest.raises(
        TooLarge, match=r"at most 4 rows and .* what the queue can ever hold for bulk; got 5 rows"
    ):
        harness.submit(*range(5), priority=BULK)
    harness.submit(*range(5))


def test_bulk_expires_and_is_cancelled_like_others() -> None:
    harness = harness_of()
    harness.submit(1)
    harness.turn()
    late, cancelled = (
        harness.submit(2, priority=BULK, deadline=0.5),
        harness.submit(3, priority=BULK),
    )
    harness.cancel(cancelled)
    harness.turn(0.6)
    assert isinstance(late.error, DeadlineExceeded)
    assert harness.scheduler.queue_rows == 0


def test_a_server_that_drains_lets_bulk_wait_no_longer() -> None:
    harness = harness_of()
    harness.submit(1)
    harness.turn()
    harness.perform()
    waiting = harness.submit(2, priority=BULK)
    harness.turn()
    assert waiting.waiting
    drained: list[None] = []
    harness.scheduler.drain().addCallback(drained.append)
    harness.finish()
    assert (waiting.values, drained) == ([4], [None])


def test_parts_under_suspicion_go_before_bulk() -> None:
    def predict(inputs: object) -> object:
        if any(row[0] == 13 for row in inputs["x"]):  # type: ignore[index]
            raise ValueError("thirteen")
        return {"y": inputs["x"] * 2}  # type: ignore[index]

    harness = harness_of(predict=predict, isolate=True)
    good, bad = harness.submit(1), harness.submit(13)
    harness.turn()
    harness.submit(7, 7, 7, priority=BULK)
    runs = []
    for _ in range(3):
        harness.worker.perform()
        harness.check()
        runs.append([float(row[0]) for row in harness.model.batches[-1]["x"]])
    assert runs == [[1, 13], [1], [13]]
    assert (good.values, str(bad.error)) == ([2], "the model failed: ValueError: thirteen")


Cost = Callable[[int], float]
COSTS: dict[str, tuple[int, Cost]] = {
    "whatever the rows": (64, lambda rows: 10e-3),
    "2 ms and 0.05 a row": (64, lambda rows: 2e-3 + 0.05e-3 * rows),
    "10 ms and 0.3 a row": (32, lambda rows: 10e-3 + 0.3e-3 * rows),
}


def load(largest: int, seconds: Cost) -> SimulatedLoad:
    queue = BatchQueue(100_000, 1 << 30, ageing=1.0, bulk_level=BULK)
    return SimulatedLoad(seconds, BulkLast(Eager(largest), AFTER), queue)


@pytest.mark.parametrize(("largest", "seconds"), COSTS.values(), ids=COSTS)
def test_a_flood_of_bulk_costs_others_little_and_gets_what_is_free(
    largest: int, seconds: Cost
) -> None:
    capacity = largest / seconds(largest)
    alone, flooded = load(largest, seconds), load(largest, seconds)
    flooded.flood(BULK, clients=4 * largest)
    for simulated in (alone, flooded):
        simulated.by_chance(1, rate=capacity / 2, until=SECONDS)
        simulated.run(until=SECONDS)
    for share in (0.5, 0.99):
        assert flooded.latency(1, share) <= 1.1 * alone.latency(1, share)
    assert flooded.rate(BULK, 0.5, SECONDS) >= 0.03 * capacity, (
        "a twentieth of a batch's time is worth so many rows"
    )


def test_where_rows_cost_nothing_bulk_gets_every_free_place() -> None:
    largest, seconds = COSTS["whatever the rows"]
    flooded = load(largest, seconds)
    flooded.flood(BULK, clients=4 * largest)
    flooded.by_chance(1, rate=largest / seconds(largest) / 2, until=SECONDS)
    flooded.run(until=SECONDS)
    assert set(flooded.device.sizes[1:]) == {largest}


@pytest.mark.parametrize(("largest", "seconds"), COSTS.values(), ids=COSTS)
def test_bulk_has_everything_once_others_are_silent(largest: int, seconds: Cost) -> None:
    simulated = load(largest, seconds)
    simulated.flood(BULK, clients=4 * largest)
    simulated.by_chance(1, rate=100, until=1.0)
    simulated.run(until=1.0)
    simulated.run(until=SECONDS)
    capacity = largest / seconds(largest)
    assert simulated.rate(BULK, 1.0 + AFTER + 0.1, SECONDS) == pytest.approx(capacity, rel=0.02)
    assert len(simulated.answers[1]) > 0


def test_however_much_bulk_waits_a_request_waits_for_one_batch_of_it_at_most() -> None:
    largest, seconds = COSTS["10 ms and 0.3 a row"]
    simulated = load(largest, seconds)
    simulated.flood(BULK, clients=50 * largest)
    simulated.run(until=1.0)
    simulated.send(1)
    simulated.run(until=1.1)
    ((_, took),) = simulated.answers[1]
    assert took <= 2 * seconds(largest)
