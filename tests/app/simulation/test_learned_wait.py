"""The default policy waits for clients that return, as long as is best, and for no others."""

from __future__ import annotations

import pytest

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost, BatchCost
from batcher.app.simulation.loads import read_load
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import simulate

A = AffineCost(4e-3, 0.25e-3), 32
B = AffineCost(2e-3, 0.02e-3), 64
C = AffineCost(0.6e-3, 0.01e-3), 64
NEVER_WAITS = "eager,max_delay_ms=0"
LOOP_COST_S = 38e-6
LEARNT = 0.5
"""Share of the requests that come before the default has learnt enough to be compared."""


def run(
    model: tuple[BatchCost, int],
    load: str,
    policy: str = "eager",
    requests: int = 5000,
    **more: float,
) -> Result:
    cost, size = model
    scenario = Scenario(
        cost=cost,
        load=read_load(load),
        settings={"max_batch_size": size},
        requests=requests,
        noise=0.02,
        warmup=LEARNT,
        **more,  # type: ignore[arg-type]
    )
    return simulate(scenario, read_candidate(policy))


@pytest.mark.parametrize("clients", [8, 32])
@pytest.mark.parametrize("model", [A, B, C], ids="ABC")
def test_clients_that_return_at_once_share_one_batch(
    model: tuple[BatchCost, int], clients: int
) -> None:
    load = f"closed:{clients},think=0.1ms"
    best = max(run(model, load, f"fixed-wait:{wait}ms").answered for wait in (0.11, 0.2, 0.4))
    assert run(model, load).answered >= 0.95 * best
    assert best > 1.2 * run(model, load, NEVER_WAITS).answered


@pytest.mark.parametrize("clients", [16, 64])
def test_half_batches_stay_where_they_hide_what_the_loop_needs_for_requests(clients: int) -> None:
    loops = {"loop_cost": LOOP_COST_S}
    load = f"closed:{clients},think=0.1ms"
    apart = run(C, load, NEVER_WAITS, **loops).answered
    together = run(C, load, "fixed-wait:5ms", **loops).answered
    assert run(C, load, **loops).answered >= 0.97 * max(apart, together)
    assert together < apart


@pytest.mark.parametrize("load", ["poisson:0.05", "poisson:0.2", "poisson:0.8"])
@pytest.mark.parametrize("model", [A, C], ids="AC")
def test_requests_at_random_are_not_waited_for(model: tuple[BatchCost, int], load: str) -> None:
    learnt, never = run(model, load), run(model, load, NEVER_WAITS)
    assert learnt.latency.mean <= 1.02 * never.latency.mean
    assert learnt.latency.p99 <= 1.05 * never.latency.p99
