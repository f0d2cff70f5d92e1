"""How far behind a model is, read from what its scheduler knows."""

from __future__ import annotations

from math import inf

import pytest

from batcher.batching.admission import Admission
from batcher.batching.autoscale import Demand
from batcher.batching.backlog import Backlog
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.places import Places
from batcher.batching.queue import BatchQueue
from batcher.errors import PredictedLate
from tests.support.scheduling import part, queue_of

BULK = 4


class Behind:
    """A backlog of one worker, whose batches of at most 4 rows take 1 s.

    Attributes:
        now: seconds on the clock.
    """

    def __init__(self) -> None:
        self.now = 10.0
        self.queue: BatchQueue = queue_of(bulk_level=BULK)
        self.places = Places(workers=1)
        cost = CostModel()
        cost.seed({1: 1.0, 4: 1.0}.items())
        self.admission = admission = Admission(cost, max_batch_size=4, max_queue_rows=100)
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


def test_demand_counts_what_came_and_waits_without_bulk(behind: Behind) -> None:
    assert behind.backlog.demand() == Demand(0, 0, 0, 4, 1.0, 1)
    first = part(3)
    behind.queue.add(first)
    behind.queue.add(part(2))
    behind.queue.take([first], 10.0)
    behind.queue.add(part(4, level=BULK))
    assert behind.backlog.demand() == Demand(5, 0, 2, 4, 1.0, 1)


@pytest.mark.parametrize(("in_s", "level", "refused"), [(1.5, 1, 1), (0.9, 1, 0), (1.5, BULK, 0)])
def test_a_refused_row_is_demand_if_a_free_worker_would_have_answered_in_time(
    behind: Behind, in_s: float, level: int, refused: int
) -> None:
    behind.places.put(Batch([part(4)]), now=10.0)
    with pytest.raises(PredictedLate):
        behind.admission.check(behind.queue, behind.places, 0, 1, level, (), 10.0, 10.0 + in_s)
    assert behind.backlog.demand()[:2] == (refused, refused)


def test_a_row_that_found_the_queue_full_is_demand_unless_it_was_bulk(behind: Behind) -> None:
    behind.admission.note_full(behind.queue, 5, 1)
    behind.admission.note_full(behind.queue, 5, BULK)
    assert behind.backlog.demand()[:2] == (5, 5)
