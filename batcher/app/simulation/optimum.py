"""The least mean latency of all schedules, by one who knows every arrival: the policy `optimum`.

One device runs batches of consecutive requests, each batch at once when its last request is there
and the device is free. Which batches? Dynamic programming over the requests in order: for the first
n requests there are several ways that matter, since an earlier end of the last batch may cost more
latency so far. A way is kept unless another one ends no later and costs no more:

    end  = max(end of the way before, arrival of the last request) + seconds of the batch
    cost = cost of the way before + sum over the batch of (end - arrival)

The ways that end before the last request of the next batch comes count as one, the cheapest, so few
are left. Requests of more rows than a batch holds are not cut here; deadlines are not looked at.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import NamedTuple

import numpy as np

from batcher.app.simulation.loads import OpenLoad, text_of
from batcher.app.simulation.record import ANSWERED, Moment, Record
from batcher.app.simulation.result import About, Floats, Result
from batcher.app.simulation.scenario import Scenario
from batcher.errors import ConfigError

MAX_REQUESTS = 20_000
"""Requests above which the search would take minutes."""

NAME = "optimum"


class Ways(NamedTuple):
    """The ways to run the first n requests that are kept, by rising end and falling cost.

    Attributes:
        ends: seconds at which the last batch ends.
        costs: sum of all latencies so far.
        starts: number of the last batch's first request.
        before: which way of the requests before that batch.
    """

    ends: Floats
    costs: Floats
    starts: np.ndarray[tuple[int], np.dtype[np.int64]]
    before: np.ndarray[tuple[int], np.dtype[np.int64]]


def optimum(scenario: Scenario) -> Result:
    """Return the result of the schedule with the least mean latency.

    Raises:
        ConfigError: it cannot be computed for `scenario`.
    """
    if scenario.ragged is not None:
        raise ConfigError(f"policy {NAME}: expected rows of one length; got --length")
    arrivals, rows = _requests(scenario)
    size, seconds = scenario.max_batch_size, scenario.cost.seconds
    ends, sizes = schedule(arrivals, rows, size, [seconds(n) for n in range(size + 1)])
    record = Record()
    first = int(len(arrivals) * scenario.warmup)
    batches = [(stop - seconds(n), n) for n, stop in sizes]
    for number, (arrival, end) in enumerate(zip(arrivals.tolist(), ends.tolist(), strict=True)):
        if number == first:
            record.begin_window(_moment(arrival, batches, scenario))
        record.send(arrival, int(rows[number]), None, 0)
        record.end(number, end, ANSWERED)
    record.end_window(_moment(float(arrivals[-1]), batches, scenario))
    return record.result(About(text_of(scenario.load), NAME, "none", scenario.capacity, 1))


def _moment(now: float, batches: list[tuple[float, int]], scenario: Scenario) -> Moment:
    """Return what has begun by `now`, of batches by their start and rows."""
    begun = [rows for start, rows in batches if start <= now]
    return Moment(now, sum(map(scenario.cost.seconds, begun)), sum(begun), {NAME: len(begun)})


def schedule(
    arrivals: Floats, rows: np.ndarray, size: int, seconds: list[float]
) -> tuple[Floats, list[tuple[int, float]]]:
    """Return the end of each request, and rows and end of each batch, of the best schedule.

    Args:
        arrivals: times of the requests, ascending.
        rows: rows of the requests, each at most `size`.
        size: most rows of a batch.
        seconds: seconds of a batch, by its rows.
    """
    nothing = np.zeros(1, np.int64)
    ways = [Ways(np.array([-inf]), np.zeros(1), nothing, nothing)]
    total_rows = np.concatenate([[0], np.cumsum(rows)])
    total_arrivals = np.concatenate([[0.0], np.cumsum(arrivals)])
    for stop in range(1, len(arrivals) + 1):
        found = []
        start = stop - 1
        while start >= 0 and (batch := int(total_rows[stop] - total_rows[start])) <= size:
            arrived = float(total_arrivals[stop] - total_arrivals[start])
            last, count = float(arrivals[stop - 1]), stop - start
            found.append(_appended(ways[start], start, last, seconds[batch], count, arrived))
            start -= 1
        ways.append(_best(found))
    return _read_back(ways, total_rows)


def _appended(
    ways: Ways, start: int, last: float, seconds: float, count: int, arrived: float
) -> Ways:
    """Return `ways` with one more batch, of `count` requests from number `start`."""
    # those that end before the last arrival: costs fall, so the last of them is the cheapest
    first = max(int(np.searchsorted(ways.ends, last, "right")) - 1, 0)
    ends = np.maximum(ways.ends[first:], last) + seconds
    costs = ways.costs[first:] + (count * ends - arrived)
    before = np.arange(first, len(ways.ends))
    return Ways(ends, costs, np.full(len(ends), start), before)


def _best(found: list[Ways]) -> Ways:
    """Return all ways that are not worse than another in both respects."""
    ends = np.concatenate([ways.ends for ways in found])
    costs = np.concatenate([ways.costs for ways in found])
    order = np.lexsort((costs, ends))
    sorted_costs = costs[order]
    cheapest_before = np.concatenate([[inf], np.minimum.accumulate(sorted_costs)[:-1]])
    kept = order[sorted_costs < cheapest_before]
    starts = np.concatenate([ways.starts for ways in found])
    before = np.concatenate([ways.before for ways in found])
    return Ways(ends[kept], costs[kept], starts[kept], before[kept])


def _read_back(ways: list[Ways], total_rows: np.ndarray) -> tuple[Floats, list[tuple[int, float]]]:
    stop = len(ways) - 1
    ends, batches = np.zeros(stop), []
    way = len(ways[stop].ends) - 1  # the cheapest
    while stop:
        end, start = float(ways[stop].ends[way]), int(ways[stop].starts[way])
        ends[start:stop] = end
        batches.append((int(total_rows[stop] - total_rows[start]), end))
        way, stop = int(ways[stop].before[way]), start
    return ends, batches[::-1]


def _requests(scenario: Scenario) -> tuple[Floats, np.ndarray]:
    """Return times and rows of the requests, as a run of `scenario` sends them."""
    load = _check(scenario)
    random = np.random.default_rng((scenario.seed, 0))
    arrivals = load.arrivals(scenario.capacity / scenario.rows.mean, random)
    sent = list(islice(arrivals, scenario.count))
    drawn = scenario.rows.whole(scenario.random(0))
    rows = [own.rows or each for own, each in zip(sent, drawn, strict=False)]
    if max(rows) > scenario.max_batch_size:
        raise ConfigError(
            f"policy {NAME}: expected requests that fit into a batch; got {max(rows)}"
        )
    return np.array([own.time for own in sent]), np.array(rows)


def _check(scenario: Scenario) -> OpenLoad:
    """Return the load; raise if the optimum cannot be computed."""
    load = scenario.load[0]
    costs = scenario.later_costs or scenario.noise or scenario.loop_cost or scenario.client_cost
    rules = {
        "one open load": len(scenario.load) == 1 and isinstance(load, OpenLoad),
        "one device": scenario.devices == 1,
        "no deadline": scenario.deadline is None,
        "one level": scenario.level is None,
        "one cost, no noise, loop cost or client cost": not costs,
        f"at most {MAX_REQUESTS} requests": scenario.count <= MAX_REQUESTS,
    }
    for expected, is_so in rules.items():
        if not is_so:
            raise ConfigError(f"policy {NAME}: expected {expected}, or it cannot be computed")
    assert isinstance(load, OpenLoad)
    return load
