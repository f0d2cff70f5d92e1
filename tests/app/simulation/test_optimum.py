"""The offline optimum, and the best values of policies that have one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost
from batcher.app.simulation.loads import closed, poisson, read_load
from batcher.app.simulation.optimum import optimum, schedule
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.searching import search
from batcher.app.simulation.simulation import simulate
from batcher.errors import ConfigError

SCENARIO = Scenario(AffineCost(4e-3, 0.25e-3), poisson(0.7), {"max_batch_size": 32}, 500)
SIZE = 3
SECONDS = [0.0, 3.0, 3.5, 6.0]


def partitions(count: int) -> Iterator[list[int]]:
    """Yield all ways to cut `count` requests into batches of 1 to 3."""
    if count == 0:
        yield []
    for last in range(1, min(count, SIZE) + 1):
        for before in partitions(count - last):
            yield [*before, last]


def latency_of(arrivals: list[float], rows: list[int], sizes: list[int]) -> float:
    end, start, total = 0.0, 0, 0.0
    for size in sizes:
        own = sum(rows[start : start + size])
        if own > SIZE:
            return float("inf")
        end = max(end, arrivals[start + size - 1]) + SECONDS[own]
        total += sum(end - arrival for arrival in arrivals[start : start + size])
        start += size
    return total


@pytest.mark.parametrize("seed", range(8))
def test_no_way_to_cut_requests_into_batches_is_better(seed: int) -> None:
    random = Random(seed)
    arrivals = sorted(random.uniform(0, 20) for _ in range(9))
    rows = [random.choice([1, 1, 2]) for _ in arrivals]
    best = min(latency_of(arrivals, rows, sizes) for sizes in partitions(len(arrivals)))
    ends, batches = schedule(np.array(arrivals), np.array(rows), SIZE, SECONDS)
    assert (ends - np.array(arrivals)).sum() == pytest.approx(best)
    assert sum(size for size, _ in batches) == sum(rows)
    assert [end for _, end in batches] == sorted(set(ends.tolist()))


@pytest.mark.parametrize("load", [0.2, 0.7, 0.95])
def test_no_policy_is_better_than_the_optimum_of_the_same_requests(load: float) -> None:
    scenario = replace(SCENARIO, load=poisson(load), warmup=0.0)
    best = optimum(scenario)
    for policy in ("eager", "delay:5ms", "threshold:4"):
        found = simulate(scenario, read_candidate(policy))
        assert best.offered == pytest.approx(found.offered)
        assert best.latency.mean <= found.latency.mean * (1 + 1e-9), policy
    assert best.latency.mean > 0.8 * simulate(scenario, read_candidate("eager")).latency.mean


@pytest.mark.parametrize(
    "scenario",
    [
        replace(SCENARIO, load=closed(8)),
        replace(SCENARIO, load=read_load("poisson:0.2+poisson:0.3")),
        replace(SCENARIO, devices=2),
        replace(SCENARIO, noise=0.1),
        replace(SCENARIO, loop_cost=1e-5),
        replace(SCENARIO, requests=100_000),
    ],
)
def test_an_optimum_that_cannot_be_computed_says_why(scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match="policy optimum: expected"):
        optimum(scenario)


def test_the_best_wait_of_a_closed_loop_is_the_time_in_which_clients_return() -> None:
    scenario = replace(SCENARIO, load=closed(8, 1.5e-3))
    found = search(scenario, "best-fixed-wait", "early")
    assert found.policy.startswith("best-fixed-wait=1.5")
    assert found.answered == pytest.approx(8 / 7.5e-3, rel=0.01)


def test_the_best_threshold_of_an_open_loop_is_hardly_better_than_not_to_wait() -> None:
    scenario = replace(SCENARIO, load=poisson(0.2), requests=1000)
    found = search(scenario, "best-threshold", "early")
    assert found.policy == "best-threshold=1"
    eager = simulate(scenario, read_candidate("eager"))
    assert found.latency.mean == pytest.approx(eager.latency.mean, rel=0.005)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected best-delay, .*got 'best-eager'"):
        search(SCENARIO, "best-eager", "early")
