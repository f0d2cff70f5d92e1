"""The command `batcher tune`: from its words to a tuning, and from that to settings in a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import uvloop
from rich.console import Console

from batcher.app.loop import install_reactor
from batcher.app.process_settings import use_one_heap
from batcher.app.simulation.distributions import Distribution, read_counts
from batcher.app.simulation.ragged import recorded_lengths
from batcher.app.simulation.reading import duration
from batcher.app.target import Said, target_flags
from batcher.app.tuning.picture import chart
from batcher.app.tuning.reasons import with_reasons
from batcher.app.tuning.report import report_text
from batcher.app.tuning.sample_rows import Lengths
from batcher.app.tuning.subject import Subject, find_subject
from batcher.app.tuning.time_box import Note
from batcher.app.tuning.tuning import Tuner, Tuning
from batcher.app.tuning.user_load import UserLoad, read_user_load, without_lengths, words_of
from batcher.config.editing import NewValue, lines_of, with_settings
from batcher.config.settings import load_settings
from batcher.errors import BatcherError, ConfigError

LENGTHS = 64
"""Different lengths that are drawn for the rows of a padded model."""

SEED = 1
"""Any number: the same lengths are drawn in every tuning."""

DEFAULT_CONFIG = Path("config.yaml")


@click.command(name="tune")
@click.argument("model")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help=f"Configuration file; {DEFAULT_CONFIG} if it is there.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second.")
@click.option(
    "--clients", type=click.IntRange(min=1), help="Clients that each await their last answer."
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Recorded requests: lines of seconds[,rows[,deadline[,level[,length]]]], or access log.",
)
@click.option("--deadline", help="Time after which an answer is of no use, such as 50ms.")
@click.option("--rows", default="1", show_default=True, help="Rows of a request, such as 1..8.")
@click.option(
    "--length", help="Lengths of the rows of a padded model, as lognormal:64,0.8 or 16..256."
)
@click.option("--time", "time_text", default="60s", show_default=True, help="Time to take, about.")
@click.option("--write", is_flag=True, help="Write the settings into the configuration file.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="File for the chart.")
def tune_command(**options: Any) -> None:
    """Find the settings with which MODEL answers its load best, and prove them by real load.

    MODEL is a model of the configuration, or a path as for `batcher serve`. The model is loaded and
    measured, settings are simulated, and the best two are tried beside the present ones.
    """
    use_one_heap()
    console = Console(stderr=True, highlight=False)
    try:
        command = TuneCommand(options)
        found = command.run(console)
        values = with_reasons(found.best, found.options, found.user.deadline)
        click.echo(report_text(found, values))
        command.write(found, values)
    except BatcherError as err:
        raise click.ClickException(str(err)) from err


class TuneCommand:
    """What a command line asks for, read before anything is loaded."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Read `options`.

        Raises:
            ConfigError: a word is none of those that are expected, or there is no such model.
        """
        self._options = options
        config: Path | None = options["config"]
        if config is None and DEFAULT_CONFIG.is_file():
            config = DEFAULT_CONFIG
        self._config = (config or DEFAULT_CONFIG).absolute()
        self._subject = self._found(config)
        self._seconds = duration(options["time_text"])
        if not self._seconds:
            raise ConfigError(f"--time: expected more than 0; got {options['time_text']!r}")
        self._user = self._read_load()
        self._lengths = self._read_lengths()

    def run(self, console: Console) -> Tuning:
        """Tune, and show on `console` what is being done."""
        loop = uvloop.new_event_loop()
        reactor = install_reactor(loop)
        with console.status("") as status:
            note = _noting(console, status.update)
            tuner = Tuner(self._subject, self._user, self._lengths, self._seconds, reactor, note)
            task = loop.create_task(tuner.run())
            end = lambda _: reactor.stop()  # noqa: E731  # of the result nothing is wanted here
            reactor.callWhenRunning(task.add_done_callback, end)
            try:
                reactor.run(installSignalHandlers=False)  # type: ignore[no-untyped-call]  # Twisted
            except KeyboardInterrupt:
                # The server that gets the load must not be left behind.
                task.remove_done_callback(end)
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
                raise
        return task.result()

    def write(self, found: Tuning, values: Mapping[str, NewValue]) -> None:
        """Write the chart, and with `--write` the settings.

        Raises:
            ConfigError: a file cannot be written.
        """
        svg: Path | None = self._options["svg"]
        writes = self._options["write"]
        if svg is None and writes:
            svg = self._config.parent / f"tune-{self._subject.found.name}.svg"
        try:
            if svg is not None:
                svg.write_text(chart(found), encoding="utf-8")
                click.echo(f"written: {svg}", err=True)
            if writes and values:
                self._write_settings(values)
                click.echo(f"written: {self._config}", err=True)
        except OSError as err:
            raise ConfigError(f"expected files that can be written: {err}") from err

    def _found(self, config: Path | None) -> Subject:
        model = self._options["model"]
        base = config.absolute().parent if config is not None else Path.cwd()
        flags = {}
        is_path = Path(model).exists() or model.endswith(".py") or ".py:" in model
        if is_path:
            if self._options["write"]:
                raise ConfigError(
                    "--write: expected the name of a model of the configuration, whose entry is "
                    f"changed; got the path {model}"
                )
            flags = target_flags(model, Said(), alone=True)
            if ("models",) not in {key[:1] for key in flags}:
                raise ConfigError(f"expected one model; got a repository of models: {model}")
            model = next(key[1] for key in flags if key[:1] == ("models",))
        settings = load_settings(None if is_path else config, os.environ, flags)
        return find_subject(model, settings, base)

    def _read_load(self) -> UserLoad:
        options, name = self._options, self._subject.found.name
        said = options["rate"], options["clients"], options["trace"]
        deadline = options["deadline"]
        return UserLoad(
            without_lengths(read_user_load(*said, name)),
            words_of(*said),
            duration(deadline) if deadline is not None else None,
            read_counts(options["rows"], "rows"),
        )

    def _read_lengths(self) -> Lengths:
        text, trace = self._options["length"], self._options["trace"]
        if text is not None:
            return _drawn(read_counts(text, "length"), f"--length {text}")
        load = read_user_load(None, None, trace, self._subject.found.name) if trace else ()
        recorded = recorded_lengths(load)
        if len(recorded) > 1:
            raise ConfigError(f"--trace: expected one length a line; got {len(recorded)}")
        return _drawn(recorded[0], f"those of {trace.name}") if recorded else Lengths()

    def _write_settings(self, values: Mapping[str, NewValue]) -> None:
        section = ("models", self._subject.found.name)
        file = self._config.resolve()
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        changed = with_settings(text, section, values) if text else lines_of(section, values)
        file.write_text(changed, encoding="utf-8")


def _drawn(lengths: Distribution, words: str) -> Lengths:
    drawn = lengths.whole(np.random.default_rng(SEED))
    return Lengths([next(drawn) for _ in range(LENGTHS)], words)


def _noting(console: Console, update: Note) -> Note:
    """Return what shows each step: a moving line at a terminal, elsewhere a line for each."""

    def note(text: str) -> None:
        if console.is_terminal:
            update(text)
        elif not text.startswith("simulating"):
            console.print(text, markup=False, soft_wrap=True)

    return note
