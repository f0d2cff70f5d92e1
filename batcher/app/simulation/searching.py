"""The best value of a policy that has one: the mark that a policy without a value must reach.

    best-delay, best-fixed-wait, best-delay-from-dequeue, best-early-binding,
    best-stagger                                                                over times
    best-threshold                                                              over numbers of rows

A coarse grid is tried first, then three times finer ones around the best value so far. What is best
depends on the load:

    closed loops           most answers a second
    deadlines              most answers in time, and of equal ones the least mean latency
    otherwise              least mean latency
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from batcher.app.simulation.candidates import Drop, read_candidate
from batcher.app.simulation.loads import ClosedLoad
from batcher.app.simulation.reading import duration_text
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import simulate
from batcher.errors import ConfigError

BEST = "best-"
OF_TIME = ("delay", "fixed-wait", "delay-from-dequeue", "early-binding", "stagger")
SEARCHED = (*OF_TIME, "threshold")
ROUNDS = 3
"""Finer grids: the value is then known to a sixty-fourth of the coarse grid's step."""

POINTS = 3
"""New values of a finer grid on either side of the best one."""

COARSE = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
"""Times of the coarse grid, as parts of the seconds of a full batch. Longer waits are never best:
two full batches could have run.
"""


def search(scenario: Scenario, text: str, drop: Drop) -> Result:
    """Return the result of the best value of the policy `text`, such as best-delay.

    Raises:
        ConfigError: no such policy is searched.
    """
    name = check_searched(text)
    whole, size = name == "threshold", scenario.max_batch_size
    grid = _powers(size) if whole else [part * scenario.seconds(size) for part in COARSE]
    results: dict[str, Result] = {}

    def written(value: float) -> str:
        return str(round(value)) if whole else duration_text(value)

    def run(value: float) -> tuple[float, float]:
        word = written(value)
        if word not in results:
            results[word] = simulate(scenario, read_candidate(f"{name}:{word}", drop))
        return _badness(scenario, results[word])

    best = written(_narrowed(grid, run))
    return replace(results[best], policy=f"{text}={best}")


def check_searched(text: str) -> str:
    """Return the name of the policy whose best value `text` asks for, or raise ConfigError."""
    name = text.removeprefix(BEST)
    if name not in SEARCHED:
        expected = ", ".join(BEST + name for name in SEARCHED)
        raise ConfigError(f"policy: expected {expected}; got {text!r}")
    return name


def _narrowed(grid: list[float], run: Callable[[float], tuple[float, float]]) -> float:
    """Return the value of the least `run`, on grids that become finer."""
    best = min(grid, key=run)
    for _ in range(ROUNDS):
        place = grid.index(best)
        low, high = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
        below = [low + (best - low) * part / (POINTS + 1) for part in range(POINTS + 1)]
        above = [best + (high - best) * part / (POINTS + 1) for part in range(POINTS + 2)]
        grid = sorted({*below, *above})
        best = min(grid, key=run)
    return best


def _badness(scenario: Scenario, result: Result) -> tuple[float, float]:
    mean = result.latency.mean
    mean = mean if mean == mean else float("inf")
    if any(isinstance(part, ClosedLoad) for part in scenario.load):
        return -result.goodput, mean
    if scenario.deadline is not None:
        return -round(result.goodput / result.capacity, 3), mean
    return mean, 0.0


def _powers(largest: int) -> list[float]:
    powers = [float(1 << power) for power in range((largest - 1).bit_length())]
    return [*powers, float(largest)]
