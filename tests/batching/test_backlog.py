"""How far behind a model is, read from what its scheduler knows."""

from __future__ import annotations

from math import inf

import pytest

from batcher.batching.admission import Admission
from batcher.batching.backlog import Backlog
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.places import Places
from batcher.batching.queue import BatchQueue
from tests.support.scheduling import part, queue_of


class Behind:
    """A backlog of one worker, whose batches of at most 4 rows take 1 s.

    Attributes:
        now: seconds on the clock.
    """

    def __init__(self) -> None:
        self.now = 10.0
        self.queue: BatchQueue = queue_of()
        self.places = Places(workers=1)
        cost = CostModel()
        cost.seed({1: 1.0, 4: 1.0}.items())
        admission = Admission(cost, max_batch_size=4, max_queue_rows=100)
        no_reruns = ()
        self.backlog = Backlog(
            self.queue,
            self.places,
            no_reruns,  # type: ignore[arg-type]  # only their number is asked for
            admission,
            1,
            lambda: self.now,
        )


@pytest.fixture
def behind() -> Behind:
    return Behind()


def test_one_more_row_waits_for_what_runs_for_the_queue_and_for_its_own_batch(
    behind: Behind,
) -> None:
    assert behind.backlog.wait_s() == 1.0
    behind.places.put(Batch([part(4)]), now=10.0)
    behind.queue.add(part(4))
    behind.now = 10.25
    assert behind.backlog.wait_s() == 0.75 + 1.0 + 1.0


def test_without_a_worker_nothing_is_ever_answered(behind: Behind) -> None:
    behind.places.set_alive(0, False)
    assert behind.backlog.wait_s() == inf


def test_a_batch_that_runs_while_no_worker_is_free_has_the_age_since_it_began(
    behind: Behind,
) -> None:
    assert behind.backlog.stuck_s() == 0.0
    behind.places.put(Batch([part(4)]), now=10.0)
    behind.now = 70.0
    assert behind.backlog.stuck_s() == 60.0


def test_what_batches_take_is_what_was_learnt(behind: Behind) -> None:
    assert behind.backlog.batch_s(4) == 1.0
