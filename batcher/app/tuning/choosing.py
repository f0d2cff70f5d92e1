"""Which settings to try, and which of them do best, in simulated time.

Settings are searched one after the other, since their effects hardly mix:

    1. how the model runs        each setup that was measured: threads, instances
    2. max_batch_size            each size that was measured, in each setup
       max_batch_elements        where rows are padded: powers of two from the longest row on, with
                                 the largest size; then all sizes within the best of them
    3. the wait                  max_delay_ms of the present policy, and policy delay
    4. pipeline_depth
    5. timeout_ms                the deadline, so that the server refuses what would be late

What is best depends on the load. Answers (in time, where there is a deadline) come first; settings
whose answers differ by less than 1 % are ordered by the 99th percentile of the latency, and those
that differ by less than 3 % there by how little they change. Simulated differences of such sizes
are within what the simulation leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

from batcher.app.simulation.candidates import Candidate, Drop
from batcher.app.simulation.costs import BatchCost, GridCost, TableCost
from batcher.app.simulation.distributions import constant
from batcher.app.simulation.loads import Load
from batcher.app.simulation.ragged import RaggedRows
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import simulate
from batcher.app.tuning.curve import Curve
from batcher.app.tuning.subject import Changes
from batcher.app.tuning.user_load import UserLoad
from batcher.app.tuning.verdict import Gain
from batcher.config.model_settings import ModelSettings

EQUAL_ANSWERS, EQUAL_P99 = 0.01, 0.03
"""Shares by which answers and latencies may differ and still count as equal."""

WAITS = (0.5, 1.0, 2.0)
"""Waits of policy `delay` that are tried, as multiples of the time of one row: another row is not
worth a longer wait than its own batch would take."""

MIN_WAIT_MS = 0.1
"""Least wait that is tried: a timer is not more exact."""


class Setup(NamedTuple):
    """One way to run the model, and what its batches take then.

    Attributes:
        changes: settings that differ from the present ones.
        curve: l(b); where rows are padded, of rows of the middle length.
        by_elements: where rows are padded, l(b) of rows of so many elements; else empty.
    """

    changes: Changes
    curve: Curve
    by_elements: Mapping[int, Curve] = {}

    @property
    def cost(self) -> BatchCost:
        """What a batch takes in simulated time."""
        if not self.by_elements:
            return TableCost(self.curve.points)
        curves = self.by_elements.items()
        tables = {float(each): TableCost(curve.points) for each, curve in curves}
        return GridCost(tables)

    @property
    def sizes(self) -> list[int]:
        """Rows of each size that was measured."""
        curves = (self.curve, *self.by_elements.values())
        return sorted({size for curve in curves for size in curve.sizes})


class Option(NamedTuple):
    """Settings that were simulated.

    Attributes:
        changes: settings that differ from the present ones; none for the present ones.
        setup: how the model runs.
        result: what the simulation has shown.
    """

    changes: Changes
    setup: Setup
    result: Result


@dataclass(frozen=True)
class Simulator:
    """Simulates settings of one model under its user's load.

    Attributes:
        present: the present settings.
        user: the load.
        requests: requests of a run.
        loop_cost: seconds of the server's loop for a request.
        client_cost: seconds of the clients for a request.
        ragged: how long rows are, and how they are padded; None for rows of one length.
        cores: 2 if the clients have a core of their own, 1 if they share the loop's.
    """

    present: ModelSettings
    user: UserLoad
    requests: int
    loop_cost: float = 0.0
    client_cost: float = 0.0
    cores: int = 2
    ragged: RaggedRows | None = None

    def option(self, changes: Changes, setup: Setup, load: Load | None = None) -> Option:
        """Return what `changes` do in `setup`, under the user's load or another one."""
        own = {**setup.changes, **changes}
        settings = self.present.model_copy(update=own)
        scenario = Scenario(
            cost=setup.cost,
            ragged=self.ragged,
            load=self.user.load if load is None else load,
            settings=self._settings(settings),
            requests=self.requests,
            devices=settings.instances,
            noise=min(setup.curve.deviation, 1.0),
            rows=self.user.rows,
            deadline=constant(self.user.deadline) if self.user.deadline else None,
            loop_cost=self.loop_cost,
            client_cost=self.client_cost,
            cores=self.cores,
        )
        candidate = Candidate(text_of(own), {}, drop=self._drop(settings))
        return Option(own, setup, simulate(scenario, candidate))

    def _settings(self, settings: ModelSettings) -> dict[str, Any]:
        return settings.model_dump(mode="json", exclude_defaults=True)

    def _drop(self, settings: ModelSettings) -> Drop:
        """Say whether the server knows of the deadline, by its own timeout."""
        deadline = self.user.deadline
        knows = deadline is None or settings.timeout <= deadline * (1 + EQUAL_ANSWERS)
        return "early" if knows else "none"


def effective(present: ModelSettings, changes: Changes) -> dict[str, Any]:
    """Return those of `changes` that change something."""
    return {key: value for key, value in changes.items() if getattr(present, key) != value}


def text_of(changes: Changes) -> str:
    """Return `changes` as a name for tables."""
    return ", ".join(f"{key} {value}" for key, value in changes.items()) or "present settings"


def search(
    simulator: Simulator, setups: Sequence[Setup], note: Callable[[str], None]
) -> list[Option]:
    """Return every option that was simulated, the present settings first."""
    present = simulator.option({}, setups[0])
    options = [present]
    for setup in setups:
        own = _Search(simulator, setup, note)
        own.run()
        options += own.options
    return options


class _Search:
    """The options of one setup."""

    def __init__(self, simulator: Simulator, setup: Setup, note: Callable[[str], None]) -> None:
        self.options: list[Option] = []
        self._simulator = simulator
        self._setup = setup
        self._note = note
        self._best: dict[str, Any] = {}

    def run(self) -> None:
        present, deadline = self._simulator.present, self._simulator.user.deadline
        least = max(present.preferred_batch_sizes, default=1)
        sizes = [size for size in self._setup.sizes if size >= least]
        others = [{"max_batch_size": size} for size in sizes if size != present.max_batch_size]
        self._try(others, with_none=True)
        if self._setup.by_elements:
            self._try_budgets(sizes)
        self._try(_waits(present, self._setup.curve))
        self._try([{"pipeline_depth": 3 - present.pipeline_depth}])
        if deadline is not None and present.timeout > deadline:
            self._try([{"policy": "eager", **self._best, "timeout_ms": deadline * 1e3}])

    def _try_budgets(self, sizes: Sequence[int]) -> None:
        """Try bounds of the elements of a batch, and then sizes within the best one.

        Bounds are tried with the largest size: the best size without a bound is small where long
        rows get dear, and then a bound has nothing left to do.
        """
        present = self._simulator.present
        largest = max(*sizes, present.max_batch_size)
        budgets = element_budgets(self._setup.by_elements, largest)
        tried: list[int | None] = [each for each in budgets if each != present.max_batch_elements]
        tried += [None] if present.max_batch_elements is not None else []
        own = {"max_batch_size": largest}
        self._try([{**own, "max_batch_elements": budget} for budget in tried])
        if "max_batch_elements" in self._best:
            self._try([{"max_batch_size": size} for size in sizes if size != largest])

    def _try(self, tried: list[dict[str, Any]], with_none: bool = False) -> None:
        """Simulate each of `tried` beside the best so far, and keep what is best then."""
        before = [option for option in self.options if option.changes == self._own(self._best)]
        present = self._simulator.present
        found = [effective(present, {**self._best, **changes}) for changes in tried]
        if with_none:
            found.insert(0, {})
        for changes in found:
            self._note(f"simulating {text_of(self._own(changes))}")
            self.options.append(self._simulator.option(changes, self._setup))
        count = len(found)
        best = ranked(before + self.options[len(self.options) - count :])[0]
        self._best = {
            key: value for key, value in best.changes.items() if key not in self._setup.changes
        }

    def _own(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**self._setup.changes, **changes}


def element_budgets(by_elements: Mapping[int, Curve], size: int) -> list[int]:
    """Return bounds of the elements of a batch to try, where batches have up to `size` rows.

    They are the powers of two that hold the longest row and bound something.
    """
    longest = max(by_elements)
    most = (size * longest - 1).bit_length()
    return [1 << power for power in range((longest - 1).bit_length(), most)]


def _waits(present: ModelSettings, curve: Curve) -> list[dict[str, Any]]:
    """Return the waits to try beside the present one."""
    alone = curve.timings[0].seconds * 1e3
    waits = [round(max(factor * alone, MIN_WAIT_MS), 1) for factor in WAITS]
    tried: list[dict[str, Any]] = []
    if present.policy != "delay" and present.max_delay_ms:
        tried.append({"max_delay_ms": 0})
    if present.policy == "delay":
        tried.append({"policy": "eager"})
    if present.policy != "slo":
        tried += [{"policy": "delay", "max_delay_ms": wait} for wait in sorted({*waits})]
    return tried


def ranked(options: Sequence[Option]) -> list[Option]:
    """Return `options`, the best one first."""
    left, order = list(options), []
    while left:
        most = max(option.result.goodput for option in left)
        good = [each for each in left if each.result.goodput >= (1 - EQUAL_ANSWERS) * most]
        least = min(_p99(option) for option in good)
        fast = [each for each in good if _p99(each) <= (1 + EQUAL_P99) * least]
        best = min(fast, key=_distance)
        order.append(best)
        left.remove(best)
    return order


def _is_first(option: Option, order: Sequence[Option]) -> bool:
    return option is next(each for each in order if each.setup is option.setup)


def is_better(option: Option, present: Option) -> bool:
    """Return whether an option does clearly better than the present settings."""
    return gains(option, present) is not None


def gains(option: Option, present: Option) -> Gain | None:
    """Return in what an option does clearly better than the present settings; None for nothing."""
    gain = option.result.goodput / max(present.result.goodput, 1e-9) - 1
    if abs(gain) > EQUAL_ANSWERS:
        return "answers" if gain > 0 else None
    return "p99" if _p99(option) < (1 - EQUAL_P99) * _p99(present) else None


def _distance(option: Option) -> tuple[int, int]:
    """Return how far an option is from the present settings; a larger batch is nearer."""
    return len(option.changes), -option.changes.get("max_batch_size", 0)


def _p99(option: Option) -> float:
    p99 = option.result.latency.p99
    return float("inf") if isnan(p99) else p99


def different(options: Sequence[Option], count: int) -> list[Option]:
    """Return the best `count` of `options`, without the present settings.

    What does no better than an option that changes less is left out. The best of each setup comes
    before the second of any: another number of threads may keep less than it promises.
    """
    found: list[Option] = []
    order = ranked(options)
    firsts = [each for each in order if _is_first(each, order) and is_better(each, options[0])]
    for option in [*firsts, *(each for each in order if each not in firsts)]:
        own = option.changes.items()
        if own and not any(
            each.changes.items() <= own and not is_better(option, each) for each in found
        ):
            found.append(option)
        if len(found) == count:
            break
    return found
