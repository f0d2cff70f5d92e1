"""The default policy waits for clients that return, as long as is best, and for no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost, BatchCost
from batcher.app.simulation.loads import read_load
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import Run, simulate

A = AffineCost(4e-3, 0.25e-3), 32
B = AffineCost(2e-3, 0.02e-3), 64
C = AffineCost(0.6e-3, 0.01e-3), 64
NEVER_WAITS = "eager,max_delay_ms=0"
LOOP_COST_S = 38e-6
BULK = 4
Floats = NDArray[np.float64]
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


@pytest.mark.parametrize("clients", [2, 4, 16])
@pytest.mark.parametrize("batch_s", [0.02, 0.1, 0.6])
def test_clients_of_slow_models_are_waited_for_too(batch_s: float, clients: int) -> None:
    """Long batches are as many as short ones until something is learnt, and take as few rows."""
    slow, load = (AffineCost(batch_s, batch_s / 16), 32), f"closed:{clients},think=0.1ms"
    best = run(slow, load, "fixed-wait:0.11ms", requests=150 * clients).answered
    assert run(slow, load, requests=150 * clients).answered >= 0.95 * best
    assert best > 1.2 * run(slow, load, NEVER_WAITS, requests=150 * clients).answered


@pytest.mark.parametrize(("clients", "most"), [(32, 1.0), (64, 0.95)])
def test_many_clients_get_one_batch_or_two_even_halves_whichever_the_loop_allows(
    clients: int, most: float
) -> None:
    fixed_cost = AffineCost(2e-3, 0.05e-3), 64
    found = run(fixed_cost, f"closed:{clients},think=0.1ms", loop_cost=LOOP_COST_S, requests=9000)
    together = clients / (LOOP_COST_S * clients + 0.1e-3 + fixed_cost[0].seconds(clients))
    halves = clients / (2 * fixed_cost[0].seconds(clients // 2))
    assert found.answered >= most * max(together, halves)


@pytest.mark.parametrize("clients", [16, 32, 48])
def test_all_clients_are_waited_for_though_the_loop_is_now_faster_now_slower(clients: int) -> None:
    """A wait for those that are back in time on average would leave the last ones behind."""
    fixed_cost, load = (AffineCost(2e-3, 0.05e-3), 64), f"closed:{clients},think=0.05ms"
    machine = {"loop_cost": LOOP_COST_S / 2, "client_cost": 1e-5, "loop_noise": 0.3}
    found = run(fixed_cost, load, requests=9000, **machine)
    together = run(fixed_cost, load, f"threshold:{clients}", requests=9000, **machine)
    assert found.mean_batch >= 0.97 * clients
    assert found.answered >= 0.98 * together.answered


def test_clients_that_take_turns_by_themselves_are_not_held_up_for_even_halves() -> None:
    """Of 32 clients 24 think so long that a wait for 16 rows ends with 8 rows each time."""
    load = "closed:8,think=0.1ms+closed:24,think=5ms"
    assert run(A, load, requests=8000).answered >= 0.97 * run(A, load, NEVER_WAITS).answered


@pytest.mark.parametrize("clients", [8, 16])
def test_bulk_that_fills_batches_up_is_not_taken_for_clients(clients: int, tmp_path: Path) -> None:
    trace = tmp_path / "bulk.csv"
    trace.write_text("".join(f"{number / 500},1,,{BULK}\n" for number in range(2000)))
    load = f"closed:{clients},think=0.1ms"
    loops = {"loop_cost": LOOP_COST_S, "loop_noise": 0.3}
    alone, with_bulk = run(A, load, **loops), run(A, f"{load}+trace:{trace}", **loops)
    assert with_bulk.levels[0] <= 1.055 * alone.latency.mean
    assert with_bulk.mean_batch > clients


def answers(load: str, policy: str, change: float, seconds: float) -> tuple[Floats, Floats]:
    """Return when requests to model A were sent and answered, three times slower from `change`."""
    cost, size = A
    slower = AffineCost(3 * cost.beta, 3 * cost.alpha)
    scenario = Scenario(
        cost=cost,
        load=read_load(load),
        settings={"max_batch_size": size},
        requests=int(seconds * size / cost.seconds(size)),
        noise=0.02,
        later_costs=((change, slower),),
    )
    simulated = Run(scenario, read_candidate(policy))
    simulated.run()
    return simulated.record.times()


def test_two_hundred_batches_after_all_take_longer_the_wait_is_right_again() -> None:
    found = {}
    for policy in ("eager", "fixed-wait:0.11ms"):
        ended = np.sort(answers("closed:8,think=0.1ms", policy, 1.0, 4.5)[1])
        batches = np.unique(ended[ended > 1.0])
        counted = (ended > batches[200]) & (ended <= batches[300])
        found[policy] = counted.sum() / (batches[300] - batches[200])
    assert found["eager"] >= 0.95 * found["fixed-wait:0.11ms"]


def test_two_seconds_after_clients_have_left_nobody_waits_for_them() -> None:
    load = "closed:32,think=0.1ms@0s..1s+poisson:0.2@1s.."
    p99 = {}
    for policy in ("eager", NEVER_WAITS):
        sent, ended = answers(load, policy, np.inf, 2.5)
        late = sent > 3.0
        p99[policy] = np.percentile((ended - sent)[late], 99)
    assert p99["eager"] <= 1.1 * p99[NEVER_WAITS]


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
