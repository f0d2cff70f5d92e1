"""What each level gets of a busy device, in simulated time.

At least its share, and its turn in bounded time.
"""

from __future__ import annotations

from math import inf

import pytest

from batcher.batching.policies.delay import Delay
from batcher.batching.policies.eager import Eager
from batcher.batching.policies.policy import Policy
from batcher.batching.queue import BatchQueue
from tests.support.simulation import SimulatedLoad

LARGEST = 32
WEIGHTS = {1: 4.0, 2: 2.0, 3: 1.0}
UNEVEN = {1: 1000.0, 2: 1.0}


def seconds(batch_rows: int) -> float:
    """Return what a batch takes."""
    return 10e-3 + 0.3e-3 * batch_rows


SECONDS = 4.0
CAPACITY = LARGEST / seconds(LARGEST)


def load(
    weights: dict[int, float],
    *,
    ageing: float = 1.0,
    smaller_first: float = 0.0,
    policy: Policy | None = None,
) -> SimulatedLoad:
    queue = BatchQueue(
        100_000, 1 << 30, weights.__getitem__, ageing=ageing, smaller_first=smaller_first
    )
    return SimulatedLoad(seconds, policy or Eager(LARGEST), queue)


@pytest.mark.parametrize("policy", [Eager(LARGEST), Delay(LARGEST, 5e-3)], ids=["eager", "delay"])
@pytest.mark.parametrize("smaller_first", [0.0, 0.1])
def test_a_low_level_that_asks_for_more_gets_at_least_its_share_beside_a_flood_of_the_highest(
    policy: Policy, smaller_first: float
) -> None:
    simulated = load(WEIGHTS, policy=policy, smaller_first=smaller_first)
    simulated.flood(1, clients=256)
    simulated.by_chance(3, rate=0.4 * CAPACITY, until=SECONDS)
    simulated.run(until=SECONDS)
    assert simulated.rate(3, 1.0, SECONDS) >= 0.99 * CAPACITY / 5
    assert simulated.rate(1, 1.0, SECONDS) + simulated.rate(3, 1.0, SECONDS) == pytest.approx(
        CAPACITY, rel=0.01
    )


def test_a_low_level_that_asks_for_less_than_its_share_gets_all_of_it() -> None:
    simulated = load(WEIGHTS)
    simulated.flood(1, clients=256)
    simulated.by_chance(3, rate=0.15 * CAPACITY, until=SECONDS)
    simulated.run(until=SECONDS)
    assert simulated.rate(3, 1.0, SECONDS) == pytest.approx(0.15 * CAPACITY, rel=0.1)
    assert simulated.latency(3, 1.0) < 1.0, "none waits"


def all_answered_by(ageing: float) -> float:
    """Return when 20 requests of weight 1 are answered beside a flood of weight 1000."""
    simulated = load(UNEVEN, ageing=ageing)
    simulated.flood(1, clients=256)
    simulated.run(until=1.0)
    for _ in range(20):
        simulated.send(2)
    while len(simulated.answers[2]) < 20:
        simulated.run(until=simulated.clock.seconds() + 0.1)
    return simulated.answers[2][-1][0]


def test_with_weights_of_a_thousand_to_one_nobody_waits_for_ever() -> None:
    assert all_answered_by(ageing=0.1) < 0.4 * all_answered_by(ageing=inf)


def test_levels_that_wait_alike_keep_the_shares_of_their_weights() -> None:
    simulated = load(WEIGHTS)
    for level, weight in WEIGHTS.items():
        simulated.flood(level, clients=round(64 * weight))
    simulated.run(until=SECONDS)
    got = [simulated.rate(level, 1.0, SECONDS) / CAPACITY for level in WEIGHTS]
    assert got == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)
