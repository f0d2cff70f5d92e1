"""The command `batcher simulate`: from its words to runs, and from their results to a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from batcher.app.simulation.candidates import (
    DROPS,
    SHIPPED,
    Drop,
    expected,
    read_candidate,
)
from batcher.app.simulation.costs import EXPECTED as COST_FORMS
from batcher.app.simulation.costs import BatchCost, read_cost
from batcher.app.simulation.distributions import read_counts, read_distribution
from batcher.app.simulation.loads import FORMS as LOAD_FORMS
from batcher.app.simulation.loads import Load, read_load, recorded
from batcher.app.simulation.optimum import NAME as OPTIMUM
from batcher.app.simulation.optimum import optimum
from batcher.app.simulation.ragged import RaggedRows, recorded_lengths
from batcher.app.simulation.reading import duration, number, split_pairs
from batcher.app.simulation.report import as_json, charts, table
from batcher.app.simulation.result import Result
from batcher.app.simulation.scenario import REQUESTS, Scenario
from batcher.app.simulation.searching import BEST, SEARCHED, check_searched, search
from batcher.app.simulation.simulation import simulate
from batcher.config.reading import scalar
from batcher.errors import ConfigError

COST = "4ms+0.25ms"
COUNT = click.IntRange(min=1)
LOADS = ("poisson:0.3", "poisson:0.7", "poisson:0.95", "closed:8,think=1ms", "closed:32,think=1ms")
POLICIES = (
    *(name for name in SHIPPED if name not in {"delay", "slo", "deferred"}),
    *("eager:0ms", "delay:5ms", "delay-from-dequeue:5ms", "early-binding:5ms"),
)


class SimulateCommand(click.Command):
    """A command whose repeated options take all words up to the next option.

    `--policy eager delay:5ms` is `--policy eager --policy delay:5ms`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give each word behind a repeated option that option's name."""
        many = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        return super().parse_args(ctx, list(_repeated(args, many)))


def _repeated(args: Sequence[str], many: set[str]) -> Iterator[str]:
    current, has_value = "", False
    for word in args:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            current, has_value = (name, bool(equals)) if name in many else ("", False)
        elif current and has_value:
            yield current
        else:
            has_value = True
        yield word


def _many(name: str, words: str, default: Sequence[str] | None = None) -> Callable[..., Any]:
    shown = f" Default: {' '.join(default)}." if default else ""
    return click.option(name, multiple=True, metavar="WORD...", help=f"{words}{shown}")


@click.command(cls=SimulateCommand, name="simulate")
@click.option("--cost", default=COST, show_default=True, help=f"Seconds of a batch: {COST_FORMS}.")
@_many("--cost-from", "What a batch costs from a time on, as in 5s=12ms+0.75ms.")
@click.option(
    "--max-batch-size", type=COUNT, default=32, show_default=True, help="Most rows of a batch."
)
@click.option("--devices", type=COUNT, default=1, show_default=True, help="Copies of the model.")
@click.option(
    "--noise",
    type=click.FloatRange(0, 3),
    default=0.0,
    show_default=True,
    help="Deviation of a batch's time, 0.1=10 %.",
)
@_many("--load", f"When requests are sent: {LOAD_FORMS}.", LOADS)
@_many(
    "--policy",
    f"What is compared: {expected()}; {', '.join(BEST + name for name in SEARCHED)}; {OPTIMUM}.",
    POLICIES,
)
@_many("--drop", "What becomes of late requests: early, expired or none.")
@click.option("--deadline", help="Time from a request to its deadline, such as 20ms or 10ms..50ms.")
@click.option("--rows", default="1", show_default=True, help="Rows of a request, such as 1..8.")
@_many("--length", "Length of a padded row, such as lognormal:64,0.8; a word for each free axis.")
@click.option(
    "--pad-to-multiple-of",
    "multiple",
    type=COUNT,
    default=1,
    show_default=True,
    help="As the model says it: lengths of batches are rounded up.",
)
@click.option("--pad-sizes", help="As the model says it: lengths of batches, such as 32,128,512.")
@click.option("--level", help="Priority of a request, such as 1=0.1,2=0.9.")
@click.option("--loop-cost", default="0", show_default=True, help="Loop's time of a request: 38us.")
@click.option("--client-cost", default="0", show_default=True, help="Clients' time of a request.")
@click.option("--cores", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--requests", type=click.IntRange(min=10), help=f"Of each run. Default: {REQUESTS}.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="The same seed sends the same requests.",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of the model.")
@click.option("--json", "wants_json", is_flag=True, help="Print the results as JSON.")
@click.option(
    "--svg", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder for charts."
)
def simulate_command(**options: Any) -> None:
    """Compare batching policies under a load, on simulated time.

    The server's own queue, admission and policies are driven, without a server or a model.
    """
    try:
        plan = Plan(options)
        results = list(_shown(plan.results(), plan.count))
    except ConfigError as err:
        raise click.ClickException(str(err)) from err
    if options["wants_json"]:
        click.echo(json.dumps(as_json(results), indent=2))
    else:
        click.echo(table(results, plan.has_deadlines))
    folder = options["folder"]
    if folder is not None:
        _write_charts(folder, charts(results, plan.has_deadlines))


def _write_charts(folder: Path, files: Mapping[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            click.echo(f"written: {folder / name}", err=True)
    except OSError as err:
        raise click.ClickException(f"--svg: cannot be written: {err}") from err
    if not files:
        click.echo("no charts: expected loads of one kind with several values", err=True)


def _shown(results: Iterator[Result], count: int) -> Iterator[Result]:
    """Yield `results`, and show on a terminal how many there are."""
    with click.progressbar(
        results, length=count, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as progress:
        yield from progress


class Plan:
    """All runs that a command asks for, read before the first one starts.

    Attributes:
        has_deadlines: whether requests have deadlines.
        count: number of results.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Read `options`.

        Raises:
            ConfigError: a word is none of those that are expected.
        """
        self._options = options
        loads = [read_load(text) for text in options["load"] or LOADS]
        self._base = self._scenario(loads[0])
        self._scenarios = [self._scenario(load) for load in loads]
        self._policies = options["policy"] or POLICIES
        self.has_deadlines = options["deadline"] is not None or any(
            arrival.allowed is not None for load in loads for arrival in recorded(load)
        )
        self._drops = _drops(options["drop"], self.has_deadlines)
        for text in self._policies:
            self._check(text)
        runs = sum(1 if text == OPTIMUM else len(self._drops) for text in self._policies)
        self.count = len(self._scenarios) * runs

    def results(self) -> Iterator[Result]:
        """Yield the result of each run."""
        for scenario in self._scenarios:
            for text in self._policies:
                if text == OPTIMUM:
                    yield optimum(scenario)
                else:
                    for drop in self._drops:
                        yield _run(scenario, text, drop)

    def _scenario(self, load: Load) -> Scenario:
        options = self._options
        pairs = [pair for text in options["pairs"] for pair in split_pairs(text, _PAIR)]
        size = {"max_batch_size": options["max_batch_size"]}
        own = {key.removeprefix("defaults."): scalar(value) for key, value in pairs}
        deadline, level = options["deadline"], options["level"]
        return Scenario(
            cost=read_cost(options["cost"]),
            ragged=_ragged(options, load),
            load=load,
            settings=size | own,
            requests=options["requests"],
            devices=options["devices"],
            noise=options["noise"],
            rows=read_counts(options["rows"], "rows"),
            deadline=deadline and read_distribution(deadline, "deadline", duration),
            level=level and read_counts(level, "level"),
            loop_cost=duration(options["loop_cost"]),
            client_cost=duration(options["client_cost"]),
            cores=options["cores"],
            seed=options["seed"],
            later_costs=tuple(map(_later_cost, options["cost_from"])),
        )

    def _check(self, text: str) -> None:
        if text.startswith(BEST):
            check_searched(text)
        elif text != OPTIMUM:
            self._base.settings_of(read_candidate(text))


def _ragged(options: Mapping[str, Any], load: Load) -> RaggedRows | None:
    """Return how rows are padded; None where nothing says that they have lengths."""
    lengths = tuple(read_counts(text, "length") for text in options["length"])
    lengths = lengths or recorded_lengths(load)
    sizes = options["pad_sizes"]
    if not lengths:
        if read_cost(options["cost"]).has_elements:
            raise ConfigError(
                "--cost: expected --length, or a trace with lengths, beside a cost of elements; "
                f"got {options['cost']!r} alone"
            )
        if sizes or options["multiple"] > 1:
            raise ConfigError("padding: needs rows with lengths; set --length, such as 16..256")
        return None
    ascending = tuple(sorted(_size(word) for word in sizes.split(","))) if sizes else ()
    return RaggedRows(lengths, options["multiple"], ascending)


def _size(text: str) -> int:
    size = number(text, "--pad-sizes")
    if size < 1 or size % 1:
        raise ConfigError(f"--pad-sizes: expected whole numbers of 1 or more; got {text!r}")
    return int(size)


def _later_cost(text: str) -> tuple[float, BatchCost]:
    time, equals, cost = text.partition("=")
    if not equals:
        raise ConfigError(f"--cost-from: expected TIME=COST, as in 5s=12ms+0.75ms; got {text!r}")
    return duration(time), read_cost(cost)


_PAIR = "--set: expected KEY=VALUE, such as pipeline_depth=1"


def _run(scenario: Scenario, text: str, drop: Drop) -> Result:
    if text.startswith(BEST):
        return search(scenario, text, drop)
    return simulate(scenario, read_candidate(text, drop))


def _drops(words: Sequence[str], has_deadlines: bool) -> Sequence[Drop]:
    unknown = [word for word in words if word not in DROPS]
    if unknown:
        raise ConfigError(f"drop: expected {', '.join(DROPS)}; got {unknown[0]!r}")
    if words and not has_deadlines:
        raise ConfigError("drop: needs requests with a deadline; set --deadline, such as 20ms")
    chosen: tuple[Drop, ...] = tuple(drop for drop in DROPS if drop in words)
    return chosen or (("early", "none") if has_deadlines else ("early",))
