"""The simulator gives the figures that theory, or an idealised simulation by others, gives.

Model A takes 4 ms + 0.25 ms for each row, in batches up to 32 rows.
"""

from __future__ import annotations

import pytest

from batcher.app.simulation.candidates import DROPS, Drop, read_candidate
from batcher.app.simulation.costs import AffineCost
from batcher.app.simulation.distributions import constant
from batcher.app.simulation.loads import read_load
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import simulate

A = AffineCost(4e-3, 0.25e-3)
REQUESTS = 4000
NEVER_WAITS = "eager,max_delay_ms=0"


def run(
    load: str, policy: str, drop: Drop = "early", deadline: float = 0.0, **more: float
) -> Result:
    scenario = Scenario(
        cost=A,
        load=read_load(load),
        settings={"max_batch_size": 32},
        requests=REQUESTS,
        deadline=constant(deadline) if deadline else None,
        **more,  # type: ignore[arg-type]
    )
    return simulate(scenario, read_candidate(policy, drop))


def test_without_waiting_a_request_takes_little_more_than_its_batch_at_low_load() -> None:
    assert run("poisson:0.05", NEVER_WAITS).latency.mean == pytest.approx(5.4e-3, rel=0.01)


def test_timers_cost_milliseconds_at_low_load_most_from_dequeue() -> None:
    assert run("poisson:0.05", "delay:5ms").latency.mean == pytest.approx(8.5e-3, rel=0.02)
    assert run("poisson:0.05", "delay-from-dequeue:5ms").latency.mean == pytest.approx(
        9.4e-3, rel=0.02
    )


@pytest.mark.parametrize(("clients", "rate"), [(8, 800), (32, 2000)])
def test_a_closed_loop_splits_into_two_half_batches_without_a_wait(clients: int, rate: int) -> None:
    # rate = N / (2 * beta + alpha * N)
    found = run(f"closed:{clients},think=1.5ms", NEVER_WAITS)
    assert found.answered == pytest.approx(rate, rel=0.01)
    assert found.mean_batch == pytest.approx(clients / 2, rel=0.01)


@pytest.mark.parametrize(("clients", "rate"), [(8, 1066), (32, 2371)])
def test_a_short_wait_makes_one_batch_of_a_closed_loop(clients: int, rate: int) -> None:
    # rate = N / (wait + beta + alpha * N)
    found = run(f"closed:{clients},think=1.5ms", "fixed-wait:1.51ms")
    assert found.answered == pytest.approx(rate, rel=0.01)
    assert found.reasons["waited" if clients < 32 else "full"] > 0.9


def test_a_wait_longer_than_a_batch_halves_the_rate_of_a_closed_loop() -> None:
    found = run("closed:4,think=6ms", "delay-from-dequeue:10ms")
    assert found.answered < 0.6 * run("closed:4,think=6ms", NEVER_WAITS).answered


@pytest.mark.parametrize(("load", "goodput"), [(0.8, 0.79), (1.0, 0.91), (1.3, 0.97), (2.0, 1.0)])
def test_early_drop_keeps_goodput_however_much_is_offered(load: float, goodput: float) -> None:
    # the figures know what batches cost, and admission still learns that here
    found = run(f"poisson:{load}", NEVER_WAITS, deadline=20e-3)
    assert found.goodput / found.capacity == pytest.approx(goodput, rel=0.12)


@pytest.mark.parametrize("drop", ["expired", "none"])
def test_without_early_drop_hardly_any_answer_is_in_time_above_capacity(drop: Drop) -> None:
    found = run("poisson:1.3", NEVER_WAITS, drop, deadline=20e-3)
    assert found.goodput < 0.2 * found.capacity


@pytest.mark.parametrize("drop", DROPS)
def test_the_rule_for_late_requests_changes_nothing_where_none_is_late(drop: Drop) -> None:
    found = run("closed:8,think=1.5ms", "eager", drop, deadline=1.0)
    assert found.answered == pytest.approx(8 / 7.5e-3, rel=0.02)


def test_a_deferred_start_meets_deadlines_and_leaves_much_of_the_device() -> None:
    found = run("poisson:0.5", "deferred", deadline=20e-3)
    assert found.goodput == pytest.approx(found.offered, rel=0.01)
    assert 0.5 <= found.busy <= 0.75
    assert 9e-3 <= found.latency.mean <= 15e-3


def test_a_wait_between_beginnings_lets_four_devices_take_turns() -> None:
    together = run("poisson:0.5", NEVER_WAITS, devices=4)
    assert together.latency.p99 == pytest.approx(14.4e-3, rel=0.08)
    apart = run("poisson:0.5", "stagger:2ms", devices=4)
    assert apart.latency.p99 == pytest.approx(10.7e-3, rel=0.08)
    assert apart.latency.mean < together.latency.mean
    learnt = run("poisson:0.5", "eager", devices=4)
    assert learnt.latency.p99 < 0.85 * together.latency.p99
    assert learnt.latency.mean < together.latency.mean


def test_batches_that_are_bound_early_lose_stability_below_capacity() -> None:
    found = run("poisson:0.7", "early-binding:5ms")
    assert found.answered < 0.9 * found.offered
    assert found.latency.mean > 10 * run("poisson:0.7", NEVER_WAITS).latency.mean


def test_a_request_costs_the_loop_time_that_a_batch_of_all_clients_does_not_hide() -> None:
    # all 32 clients are in the batch: 12 ms, and 32 * 38 us for which no batch runs
    found = run("closed:32", "fixed-wait:2ms", loop_cost=38e-6)
    assert found.answered == pytest.approx(32 / (12e-3 + 32 * 38e-6), rel=0.01)
    # two half batches hide the loop's work behind each other
    assert run("closed:32", NEVER_WAITS, loop_cost=38e-6).answered == pytest.approx(2000, rel=0.01)


def test_clients_on_the_core_of_the_loop_add_their_own_work_to_its_time() -> None:
    found = {
        cores: run(
            "closed:32", "fixed-wait:4ms", loop_cost=20e-6, client_cost=20e-6, cores=cores
        ).answered
        for cores in (1, 2)
    }
    assert found[1] == pytest.approx(32 / (12e-3 + 32 * 40e-6), rel=0.01)
    assert found[1] < found[2] < 32 / 12e-3
