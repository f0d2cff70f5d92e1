"""The child that waits to take the place of another."""

from __future__ import annotations

from twisted.internet.task import Clock

from batcher.workers.process.restarts import Restarts
from batcher.workers.process.spare import SpareChild
from tests.workers.process.test_worker import FakeChild


class Bench:
    """A spare, every child that was made, and whether a spare is wanted."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.wanted = True
        self.made = 0
        restarts = Restarts(lambda delay: delay)
        self.spare = SpareChild(self.clock, restarts, self._make_child, lambda: self.wanted)

    def _make_child(self) -> FakeChild:
        self.made += 1
        # No parent: nobody hears what becomes of a spare here.
        return FakeChild(f"child {self.made}", self.events, None)  # type: ignore[arg-type]


def test_there_is_one_spare_if_one_is_wanted() -> None:
    bench = Bench()
    bench.wanted = False
    bench.spare.prepare()
    assert bench.spare.child is None
    bench.wanted = True
    bench.spare.prepare()
    bench.spare.prepare()
    assert bench.events == ["child 1 starts"]


def test_whoever_takes_the_spare_gets_it_or_a_new_child() -> None:
    bench = Bench()
    bench.spare.prepare()
    spare = bench.spare.child
    assert bench.spare.take() is spare
    assert bench.spare.child is None
    bench.spare.take()
    assert bench.events == ["child 1 starts", "child 2 starts"]


def test_a_spare_that_ends_is_replaced_more_and_more_slowly() -> None:
    bench = Bench()
    bench.spare.prepare()
    for delay in (0.0, 0.1, 0.2, 0.4):
        bench.spare.ended()
        made = bench.made
        if delay:
            bench.clock.advance(0.99 * delay)
            assert bench.made == made
        bench.clock.advance(0.01 * delay + 1e-9)
        assert bench.made == made + 1


def test_after_quitting_no_spare_is_made() -> None:
    bench = Bench()
    bench.spare.prepare()
    bench.spare.quit()
    assert bench.events == ["child 1 starts", "child 1 killed"]
    bench.spare.ended()
    assert bench.clock.getDelayedCalls() == []
