"""The batches that a worker holds, and which of them is timed."""

from __future__ import annotations

from twisted.internet.task import Clock

from batcher.workers.held_batches import HeldBatches
from tests.workers.test_memory import batch_of

LIMIT = 10.0


class Bench:
    """Held batches, and when the oldest was overdue."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.overdue: list[float] = []
        self.held = HeldBatches(
            self.clock, LIMIT, lambda: self.overdue.append(self.clock.seconds())
        )
        self.batches = [batch_of(1), batch_of(2), batch_of(3)]
        for batch in self.batches:
            self.held.add(batch)


def test_only_the_oldest_is_timed_from_when_the_one_before_came_back() -> None:
    bench = Bench()
    bench.clock.advance(LIMIT - 1)
    bench.held.remove_oldest()
    bench.clock.advance(1)
    assert bench.overdue == [], "the second one has its own time"
    bench.clock.advance(LIMIT - 1)
    assert bench.overdue == [2 * LIMIT - 1]
    assert bench.held.oldest is bench.batches[1]


def test_behind_one_that_hangs_nothing_is_timed() -> None:
    bench = Bench()
    bench.clock.advance(LIMIT)
    bench.held.remove_overdue()
    bench.clock.advance(10 * LIMIT)
    assert bench.overdue == [LIMIT]
    assert len(bench.held) == 2


def test_all_are_removed_in_order_and_nothing_is_timed() -> None:
    bench = Bench()
    assert list(bench.held.remove_all()) == bench.batches
    assert (len(bench.held), bench.held.oldest) == (0, None)
    bench.clock.advance(LIMIT)
    assert bench.overdue == []
    assert bench.clock.getDelayedCalls() == []
