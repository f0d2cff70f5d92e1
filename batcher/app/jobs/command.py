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
from batcher.app.jobs.opening import Asked, DoneBefore, check_names, open_job
from batcher.app.jobs.remote import RemoteModel, RemoteServer, find_remote
from batcher.app.jobs.running import JobRun, Make
from batcher.app.jobs.screen import ended_text
from batcher.app.jobs.sources import source_at
from batcher.app.jobs.targets import target_at
from batcher.app.process_settings import set_process
from batcher.app.target import Said, target_flags
from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import BatcherError, ConfigError
from batcher.serving.jobs.journal import FINISHED
from batcher.serving.jobs.writing import progress_of
from batcher.serving.references.fetcher import rules_of
from batcher.serving.references.line_files import LineFiles

DEFAULT_CONFIG = Path("config.yaml")
WITH_ERRORS, STOPPED = 3, 130


@click.command(name="run")
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
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
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for an output that goes into a store, and its journal; ~/.cache/batcher/jobs.",
)
@click.option("--restart", is_flag=True, help="Begin anew, and overwrite what is there.")
def run_command(**options: Any) -> None:
    """Run every row of INPUT through MODEL, and write the answers to OUTPUT in the same order.

    MODEL is a model of the configuration, or a path as for `batcher serve`; with --url, the name of
    a model of that server, which runs the job in its bulk class.

    INPUT is a file of JSON lines (.jsonl), CSV (.csv), numpy arrays (.npz) or Parquet (.parquet),
    or a folder of pictures; OUTPUT is one of those files. Both may lie in a store, as
    s3://bucket/rows.jsonl. A job that was killed goes on when the same command runs again.

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
    check_names(options["source"], options["output"])
    source, target = source_at(options["source"]), target_at(options["output"], options["work"])
    url, is_remote = options["url"], options["url"] is not None
    settings, base, name = _settings(options["config"], options["model"], is_remote)
    rules = rules_of(settings)
    files = LineFiles(lambda: rules) if rules.is_on else None
    header, pixels = options["csv_header"] or "", settings.max_image_pixels
    restart = options["restart"]
    asked = Asked(source, target, header, restart, pixels, files=files, may_start=True)
    if is_remote:
        remote = find_remote(url, name, options["api_key"])
        return _ended(remote, asked, lambda reactor, _: RemoteServer(remote, reactor))
    set_process(settings)
    model = find_local(name, settings, base)
    return _ended(model, asked, partial(LocalServer, model))


def _ended(model: LocalModel | RemoteModel, asked: Asked, make: Make) -> int:
    """Run a job, and return the exit status. Raises BatcherError, OSError."""
    target, opened = asked.target, open_job(asked, model.spec, model.identity())
    if isinstance(opened, DoneBefore):
        progress, how, before = progress_of(opened.record), "", "done already: "
    else:
        try:
            run = JobRun(model.title, make, model.shape, opened)
            progress, how, before = run.run(), run.rate_text, ""
        finally:
            opened.close()
    if progress.stage in FINISHED:
        target.send(opened.files)
    click.echo(f"{before}{ended_text(progress, target.title)}{how}")
    if progress.stage not in FINISHED:
        return STOPPED
    return WITH_ERRORS if progress.failed else 0


def _settings(config: Path | None, model: str, is_remote: bool) -> tuple[ServerSettings, Path, str]:
    """Return the settings, the folder that paths in them start from, and the model's name."""
    if is_remote or not (Path(model).exists() or ".py:" in model):
        config = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
        base = config.absolute().parent if config is not None else Path.cwd()
        return load_settings(config, os.environ, {}), base, model
    flags = target_flags(model, Said(), alone=config is None)
    named = [key[1] for key in flags if key[0] == "models"]
    if not named:
        raise ConfigError(f"expected one model; got a repository of models: {model}")
    base = config.absolute().parent if config is not None else Path.cwd()
    return load_settings(config, os.environ, flags), base, named[0]
