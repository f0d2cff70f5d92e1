"""The command `batcher run`: from its words to a job, and from its end to an exit status.

    status   means
    0        each row has an answer
    1        the job could not be run, or could not go on; the reason is the last line
    3        completed with errors: the file of errors names the rows without an answer
    130      stopped by Ctrl-C or SIGTERM; the same command goes on

A model is loaded only when the input, the output and what an earlier run has left fit together.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from batcher.app.jobs.local import LocalModel, LocalServer, find_local
from batcher.app.jobs.opening import Asked, open_job
from batcher.app.jobs.remote import RemoteModel, RemoteServer, find_remote
from batcher.app.jobs.running import JobRun, Make
from batcher.app.jobs.screen import ended_text
from batcher.app.process_settings import set_process
from batcher.app.target import Said, target_flags
from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import BatcherError, ConfigError
from batcher.serving.jobs.journal import DONE, Record
from batcher.serving.jobs.writing import Progress

DEFAULT_CONFIG = Path("config.yaml")
WITH_ERRORS, STOPPED = 3, 130


@click.command(name="run")
@click.argument("model")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUTPUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help=f"Configuration file; {DEFAULT_CONFIG} if it is there.",
)
@click.option(
    "--header",
    "csv_header",
    type=click.Choice(["present", "absent"]),
    help="Whether a CSV input has a header, where its first line does not show it.",
)
@click.option("--url", help="Of a server that runs the job, as http://localhost:8080.")
@click.option(
    "--api-key", envvar="BATCHER_API_KEY", default="", help="With --url: what it knows you by."
)
@click.option("--restart", is_flag=True, help="Begin anew, and overwrite what is there.")
def run_command(**options: Any) -> None:
    """Run every row of INPUT through MODEL, and write the answers to OUTPUT in the same order.

    MODEL is a model of the configuration, or a path as for `batcher serve`; with --url, the name of
    a model of that server, which runs the job in its bulk class. INPUT is a file of JSON
    lines (.jsonl), CSV (.csv) or numpy arrays (.npz), or a folder of pictures; OUTPUT is one of
    those files. A job that was killed goes on where it was when the same command runs again.

    The exit status is 0 if each row has an answer, 3 if rows have none (OUTPUT.errors.jsonl names
    them), 1 if the job cannot go on, and 130 if a signal has stopped it.
    """
    try:
        status = _run(options)
    except (BatcherError, OSError) as err:
        raise click.ClickException(str(err)) from err
    sys.stdout.flush()
    if status:
        sys.exit(status)


def _run(options: dict[str, Any]) -> int:
    """Run the job, and return the exit status. Raises BatcherError, OSError."""
    asked = Asked(
        options["source"].absolute(),
        options["output"].absolute(),
        options["csv_header"] or "",
        options["restart"],
    )
    asked.check()
    if options["url"] is not None:
        remote = find_remote(options["url"], options["model"], options["api_key"])
        return _ended(remote, asked, lambda reactor, _: RemoteServer(remote, reactor))
    settings, base, name = _settings(options["config"], options["model"])
    asked = asked._replace(max_pixels=settings.max_image_pixels)
    set_process(settings)
    model = find_local(name, settings, base)
    return _ended(model, asked, partial(LocalServer, model))


def _ended(model: LocalModel | RemoteModel, asked: Asked, make: Make) -> int:
    """Run a job, and return the exit status. Raises BatcherError, OSError."""
    opened = open_job(asked, model.spec, model.identity())
    if isinstance(opened, Record):
        click.echo(f"done already: {ended_text(_progress(opened), asked.output)}")
        return WITH_ERRORS if opened.failed else 0
    try:
        run = JobRun(model.title, make, model.shape, opened)
        progress = run.run()
    finally:
        opened.output.close()
    click.echo(ended_text(progress, asked.output) + run.rate_text)
    if progress.stage != DONE:
        return STOPPED
    return WITH_ERRORS if progress.failed else 0


def _progress(record: Record) -> Progress:
    return Progress(record.rows, record.failed, record.done, record.stage)


def _settings(config: Path | None, model: str) -> tuple[ServerSettings, Path, str]:
    """Return the settings, the folder that paths in them start from, and the model's name."""
    if not (Path(model).exists() or ".py:" in model):
        config = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
        base = config.absolute().parent if config is not None else Path.cwd()
        return load_settings(config, os.environ, {}), base, model
    flags = target_flags(model, Said(), alone=config is None)
    named = [key[1] for key in flags if key[0] == "models"]
    if not named:
        raise ConfigError(f"expected one model; got a repository of models: {model}")
    base = config.absolute().parent if config is not None else Path.cwd()
    return load_settings(config, os.environ, flags), base, named[0]
