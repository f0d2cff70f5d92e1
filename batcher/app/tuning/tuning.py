"""One tuning, from the loaded model to its verified settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, NamedTuple

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from batcher.app.tuning.child_server import child_server
from batcher.app.tuning.choosing import (
    Option,
    Setup,
    Simulator,
    different,
    gains,
    search,
    text_of,
)
from batcher.app.tuning.curve import Curve, Limits, Run, measured
from batcher.app.tuning.lengths import RowSize, measured_places, simulated_rows, words_of_sizes
from batcher.app.tuning.loaded_model import LoadedModel, loaded
from batcher.app.tuning.rounds import Costs, Rounds
from batcher.app.tuning.sample_rows import Inputs, Lengths, Row
from batcher.app.tuning.scaling import middle_of, scaled_setup
from batcher.app.tuning.sending import Measured
from batcher.app.tuning.subject import Changes, Subject
from batcher.app.tuning.time_box import CHOSEN, MEASURED, Note, TimeBox
from batcher.app.tuning.user_load import UserLoad
from batcher.app.tuning.verdict import best, verdict
from batcher.core.cores import cores
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ConfigError

VERIFIED = 2
"""Settings that real load is sent to beside the present ones."""

BEYOND = 4
"""Times the present `max_batch_size` up to which batches are measured. Twice as large is seldom
enough where the present size is far too small; a second `batcher tune` begins at the new size."""

SETUP_PART = 0.5
"""Part of the time for measuring that the present setup has; the others share the rest."""

LEAST_REQUESTS, MOST_REQUESTS = 2_000, 20_000
"""Requests of a simulated run: with 2,000 a 99th percentile is known to some percent."""

SECONDS_A_REQUEST = 40e-6
"""Seconds of one simulated request, not compiled, on a slow machine."""

EXPECTED_RUNS = 20
"""Simulated runs of one setup; of one whose rows are padded, twice as many."""

LARGER_RUNS = 8
"""Times of a batch that the first round with batches twice as large takes: four runs."""

LONGEST_S = 0.25
"""Seconds of a batch of padded rows up to which larger ones are measured whatever the time."""

PRESENT = "present"
"""The model's name in a server, with the present settings."""

NextInputs = Callable[[int], Mapping[str, Any]]
"""Gives the inputs of the next request, of so many rows."""


class Tuning(NamedTuple):
    """What a tuning has found.

    Attributes:
        subject: the model.
        user: the load.
        setups: the ways in which the model was run, the present one first.
        costs: what a request costs beside the model.
        options: what was simulated, the present settings first.
        verified: what real load was sent to, the present settings first.
        rounds: the rounds of each of these.
        best: the best of these settings; none where the present ones stay.
        simulator: simulates further settings.
        lengths: how long rows are and where that comes from, in words; empty where rows have one.
        left_out: other ways to run the model that were not tried, each with the reason.
    """

    subject: Subject
    user: UserLoad
    setups: list[Setup]
    costs: Costs
    options: list[Option]
    verified: list[Option]
    rounds: list[list[Measured]]
    best: Changes
    simulator: Simulator
    lengths: str = ""
    left_out: Sequence[str] = ()


class Tuner:
    """Tunes one model. The thread of the loop."""

    def __init__(
        self,
        subject: Subject,
        user: UserLoad,
        lengths: Lengths,
        seconds: float,
        reactor: AsyncioSelectorReactor,
        note: Note,
    ) -> None:
        """Tune `subject` for `user`, with rows of `lengths`, within about so many `seconds`.

        Without lengths, padded rows have those of the model's sample or its warm-up.
        """
        self._subject = subject
        self._user = user
        self._lengths = lengths
        self._reactor = reactor
        self._note = note
        self._box = TimeBox(seconds, perf_counter)
        self._rows: list[Row] = []
        self._sizes: list[RowSize] = []
        self._words = ""
        self._left_out: list[str] = []
        self._spec: ModelSpec

    async def run(self) -> Tuning:
        """Go through all steps.

        Raises:
            BatcherError: the model cannot be tuned; the message says why.
        """
        setups = await self._setups()
        costs = await self._costs()
        simulator = self._simulator(costs, len(setups))
        options = search(simulator, setups, self._note)
        tried = [options[0], *different(options, VERIFIED)]
        verified, rounds = await self._verified(tried)
        found = (self._subject, self._user, setups, costs, options)
        best, words = chosen(verified, rounds), self._words
        return Tuning(*found, verified, rounds, best, simulator, words, self._left_out)

    async def _setups(self) -> list[Setup]:
        """Measure the present setup, and others as far as there is time.

        Threads are tried whatever measuring has taken: of a costly model on few cores they tell
        more than anything else.
        """
        setups = [await self._present_setup()]
        self._check_deadline(setups[0])
        for changes in other_setups(self._subject, cores()):
            if not self._box.left(MEASURED if "instances" in changes else 1.0):
                self._left_out.append(f"{text_of(changes)}: no time was left for it")
                continue
            try:
                setups.append(await self._other_setup(changes, setups[0]))
            except BatcherError as err:  # the memory may have no room for a second instance
                self._left_out.append(f"{text_of(changes)}: {err}")
        return setups

    async def _present_setup(self) -> Setup:
        """Measure l(b), of rows of each length, and learn what requests are."""
        self._note("loading the model")
        part, most = MEASURED * SETUP_PART, BEYOND * self._subject.present.max_batch_size
        async with self._loaded({}, most) as model:
            await self._learn_rows(model)
            if not self._sizes:
                run = self._noted(model, None, "")
                return Setup({}, await self._curve(run, self._limits(most), part))
            curves: dict[int, Curve] = {}
            places = measured_places(self._sizes)
            limits = self._limits(most)._replace(longest=self._longest(len(places)))
            for left, place in zip(range(len(places), 0, -1), places, strict=True):
                elements, now = self._sizes[place].padded, self._box.spent / self._box.total
                run = self._noted(model, self._rows[place], f", {elements} elements each")
                until = now + (part - now) / left
                curves[elements] = await self._curve(run, limits, until)
        return Setup({}, curves[middle_of(curves)], dict(sorted(curves.items())))

    async def _other_setup(self, changes: Changes, present: Setup) -> Setup:
        """Measure l(b) with `changes`, at the sizes of the present one.

        Of rows of several lengths those of the middle one are measured. That takes a third of the
        time, and the others follow from it.
        """
        words = f", {text_of(changes)}"
        self._note(f"loading the model{words}")
        most = max(*present.sizes, self._subject.present.max_batch_size)
        limits = self._limits(most)
        async with self._loaded(changes, most) as model:
            if not present.by_elements:
                run = self._noted(model, None, words)
                return Setup(changes, await self._curve(run, limits, MEASURED))
            elements = middle_of(present.by_elements)
            padded = [size.padded for size in self._sizes]
            row = self._rows[padded.index(elements)]
            run = self._noted(model, row, f", {elements} elements each{words}")
            limits = limits._replace(longest=self._longest(len(present.by_elements)))
            curve = await self._curve(run, limits, MEASURED)
        return scaled_setup(changes, curve, elements, present.by_elements)

    def _loaded(self, changes: Changes, most: int) -> AbstractAsyncContextManager[LoadedModel]:
        return loaded(self._subject, changes, self._lengths, self._reactor, most)

    async def _learn_rows(self, model: LoadedModel) -> None:
        """Learn what requests are, and how long their rows are."""
        self._rows, self._spec = model.rows, model.spec
        self._sizes = await model.sizes()
        if self._sizes:
            self._words = f"lengths: {model.words}: {words_of_sizes(self._sizes)}"

    async def _curve(self, run: Run, limits: Limits, part: float) -> Curve:
        curve = await measured(run, limits, perf_counter, lambda: self._box.left(part))
        if not curve.timings:
            raise ConfigError(
                f"model {self._subject.title}: expected batches of whole requests; got other ones, "
                "as of a `preprocess` that makes several rows of one"
            )
        return curve

    def _longest(self, lengths: int) -> float:
        """Return the seconds of a batch beyond which larger ones of one of `lengths` take long."""
        return max(MEASURED * SETUP_PART * self._box.total / lengths / LARGER_RUNS, LONGEST_S)

    def _noted(self, model: LoadedModel, row: Row | None, words: str) -> Run:
        sizes: set[int] = set()

        async def run(rows: int) -> float | None:
            if rows not in sizes:
                sizes.add(rows)
                self._note(f"measuring batches of {rows}{words}")
            return await model.run(rows, row)

        return run

    def _limits(self, most: int) -> Limits:
        return Limits(self._subject.present.max_batch_size, most, self._user.deadline)

    def _check_deadline(self, setup: Setup) -> None:
        curves, deadline = setup.by_elements.values() or [setup.curve], self._user.deadline
        alone = min(curve.timings[0].seconds for curve in curves)
        if deadline is not None and alone >= deadline:
            raise ConfigError(
                f"--deadline: expected more than the {alone * 1e3:.3g} ms that the model takes for "
                f"one row alone; got {deadline * 1e3:g} ms: no setting can help"
            )

    async def _costs(self) -> Costs:
        self._note("starting a server, to see what a request costs")
        with child_server(
            self._subject.configuration({PRESENT: self._subject.without_warmup})
        ) as server:
            server.ready([PRESENT])
            return await Rounds(server, self._user, self._inputs(), self._box).costs(PRESENT)

    def _simulator(self, costs: Costs, setups: int) -> Simulator:
        ragged = simulated_rows(self._spec, self._sizes)
        runs = EXPECTED_RUNS * setups * (2 if ragged else 1)
        fitting = self._box.left(CHOSEN) / (runs * SECONDS_A_REQUEST)
        requests = round(min(max(fitting, LEAST_REQUESTS), MOST_REQUESTS))
        present = self._subject.present
        return Simulator(
            present, self._user, requests, *costs, cores=min(cores(), 2), ragged=ragged
        )

    async def _verified(self, tried: list[Option]) -> tuple[list[Option], list[list[Measured]]]:
        """Send real load to what was `tried`; return what could be loaded, and its rounds."""
        named = {
            PRESENT if not place else f"best-{place}": each for place, each in enumerate(tried)
        }
        self._note("starting a server, with the present settings and the best ones")
        models = {name: option.changes for name, option in named.items()}
        with child_server(self._subject.configuration(models)) as server:
            ready = server.ready(list(named))
            rate = tried[0].result.answered / self._user.rows.mean
            sender = Rounds(server, self._user, self._inputs(), self._box)
            rounds = await sender.compare(ready, rate, self._note)
        return [named[name] for name in ready], rounds

    def _inputs(self) -> NextInputs:
        return Inputs(self._spec, self._rows).next


def chosen(verified: Sequence[Option], rounds: Sequence[Sequence[Measured]]) -> Changes:
    """Return the best of the `verified` settings, by the rounds of each; none for the present ones.

    Settings must be better in both ways, and in the same thing. What is equal in simulation and
    better under real load has mostly been lucky; and what is better in simulation alone has met
    something that is not in it.
    """
    found = [
        verdict(rounds[0], own).promised(gains(option, verified[0]))
        for option, own in zip(verified[1:], rounds[1:], strict=True)
    ]
    place = best(found)
    return verified[1 + place].changes if place is not None else {}


def other_setups(subject: Subject, count: int) -> list[Changes]:
    """Return other ways to run a model on a machine of `count` cores.

    One thread a batch, or all cores; and one more instance, on cores of its own or on the same
    device. A setup that is the present one is left out.
    """
    present = subject.present
    changes: list[Changes] = []
    if subject.is_on_cpu:
        threads = {1, count} - {present.torch_threads}
        changes += [{"torch_threads": number} for number in sorted(threads)]
    more = present.instances + 1
    if not subject.is_on_cpu:
        changes.append({"instances": more})
    elif count >= more and present.torch_threads is not None:
        own = max(count // more, 1)
        changes.append({"instances": more, "torch_threads": own})
    return changes
