"""Rows of unequal lengths under the simulated scheduler: cuts, budgets, padding, costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost
from batcher.app.simulation.distributions import constant, read_counts
from batcher.app.simulation.loads import closed, read_load
from batcher.app.simulation.ragged import RaggedRows
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import Run, simulate

TWO_KINDS = read_counts("8=0.9,256=0.1", "length")


class Watched:
    """A cost that notes rows and elements of a row of each batch.

    Attributes:
        batches: rows and elements of each batch that was asked for.
    """

    has_elements = True

    def __init__(self, cost: AffineCost) -> None:
        self.batches: list[tuple[float, float]] = []
        self._cost = cost

    def seconds(self, rows: float, elements: float = 0.0) -> float:
        self.batches.append((rows, elements))
        return self._cost.seconds(rows, elements)


COST = AffineCost(2e-3, 0.1e-3, 10e-6)


def scenario(**changes: Any) -> Scenario:
    plain = Scenario(COST, closed(32, 1e-3), {"max_batch_size": 16}, requests=600)
    return replace(plain, ragged=RaggedRows((TWO_KINDS,)), **changes)


def ran(found: Scenario, policy: str = "eager") -> tuple[Result, list[tuple[float, float]]]:
    """Return the result, and rows and elements of each batch."""
    watched = Watched(COST)
    run = Run(found, read_candidate(policy))
    for device in run._devices:
        device.cost = watched
    run.run()
    assert run.record.open == 0
    run.scheduler.check_invariants()
    return simulate(found, read_candidate(policy)), watched.batches


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 300), st.sampled_from(["eager", "delay:2ms", "eager:0ms"]))
def test_rows_of_one_length_do_as_rows_without_lengths(length: int, policy: str) -> None:
    even = replace(scenario(), ragged=RaggedRows((constant(length),)))
    plain = replace(even, ragged=None, cost=AffineCost(2e-3, 0.1e-3 + 10e-6 * length))
    found, expected = (simulate(each, read_candidate(policy)) for each in (even, plain))
    assert found.padding == 1
    assert found.capacity == pytest.approx(expected.capacity)
    assert found.latency.mean == pytest.approx(expected.latency.mean, rel=0.05)
    assert found.mean_batch == pytest.approx(expected.mean_batch, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(
    budget=st.integers(8, 4096),
    multiple=st.sampled_from([1, 8, 50]),
    load=st.sampled_from(["closed:32", "poisson:0.9", "gamma:1.5,cv=3"]),
)
def test_no_batch_of_several_rows_exceeds_its_budget(budget: int, multiple: int, load: str) -> None:
    ragged = RaggedRows((read_counts("1..200", "length"),), multiple)
    limits = {"max_batch_size": 16, "max_batch_elements": budget}
    _, batches = ran(
        replace(scenario(), ragged=ragged, load=read_load(load), settings=limits, requests=200)
    )
    assert all(rows == 1 or rows * elements <= budget for rows, elements in batches)
    assert all(elements % multiple == 0 for _, elements in batches)


def test_short_rows_do_not_ride_with_long_ones() -> None:
    found, batches = ran(scenario())
    assert {elements for _, elements in batches} == {8, 256}
    assert found.padding < 1.5
    in_order, _ = ran(replace(scenario(), cost=AffineCost(1.0, 0.0)))
    assert in_order.padding > 2 * found.padding  # only the base counts: all ride together


def test_the_lengths_of_batches_are_those_that_the_model_is_compiled_for() -> None:
    ragged = RaggedRows((read_counts("1..60", "length"),), sizes=(16, 64))
    _, batches = ran(replace(scenario(), ragged=ragged))
    assert {elements for _, elements in batches} == {16, 64}


def test_pictures_are_padded_to_the_greatest_height_and_width() -> None:
    sides = read_counts("2=0.5,10=0.5", "length")
    _, batches = ran(replace(scenario(), ragged=RaggedRows((sides, sides), width=3)))
    assert {elements for _, elements in batches} <= {3 * side for side in (4, 20, 100)}
    assert 3 * 100 in {elements for _, elements in batches}


def test_a_full_batch_is_one_of_the_mean_length_within_the_budget() -> None:
    whole = replace(scenario(), ragged=RaggedRows((constant(100),)))
    assert whole.full_batch == 16
    limited = replace(whole, settings={"max_batch_size": 16, "max_batch_elements": 450})
    assert limited.full_batch == 4
    assert limited.capacity == pytest.approx(4 / COST.seconds(4, 100))


def test_deadlines_of_long_rows_are_judged_by_their_length() -> None:
    late = scenario(load=read_load("poisson:0.02"), deadline=constant(4.6e-3))
    found = simulate(late, read_candidate("eager"))
    assert found.refused + found.dropped == pytest.approx(0.1, abs=0.05)  # they take 4.7 ms alone
