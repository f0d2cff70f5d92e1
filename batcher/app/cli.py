"""The command line: `batcher serve`, `batcher check`, `batcher predict`."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click
from rich.console import Console
from rich.status import Status

from batcher import __version__
from batcher.app.reloading import Read
from batcher.codecs.file_names import format_of_file
from batcher.config.model_file import load_model_definition
from batcher.config.reading import dotted, scalar
from batcher.config.settings import ServerSettings, load_settings, share_threads
from batcher.errors import BatcherError, ConfigError, UnsupportedMediaType
from batcher.serving.repository.folders import find_models, find_versions

DEFAULT_CONFIG = Path("config.yaml")

Flags = dict[tuple[str, ...], tuple[str, object]]
"""From a setting's path to the flag's name and the value it was given."""


class StartReport:
    """Tells on standard error what is being loaded, and on standard output when the server is ready."""

    def __init__(self) -> None:
        """Begin to measure the time."""
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._told: dict[str, str] = {}
        self._began = time.monotonic()
        self._ready = False

    def progress(self, title: str, text: str) -> None:
        """Show what is being done with the model `title`.

        A moving line on a terminal, else a line for each stage.
        """
        stage = text.partition(", batch size")[0]
        if self._console.is_terminal and not self._ready:
            self._status = self._status or self._console.status("")
            self._status.start()
            self._status.update(f"model {title}: {text}")
        if self._told.get(title) != stage:
            self._told[title] = stage
            self._console.print(
                f"model {title}: {stage} ({time.monotonic() - self._began:.1f} s)",
                markup=False,
                soft_wrap=True,
            )

    def ready(self, address: str) -> None:
        """Tell the address, in one line."""
        self.stop()
        self._ready = True
        click.echo(
            f"batcher {__version__} is ready on {address} after "
            f"{time.monotonic() - self._began:.1f} s"
        )

    def failed(self, reason: str) -> None:
        """Tell why the server cannot start."""
        self.stop()
        click.echo(f"batcher cannot start: {reason}", err=True)

    def stop(self) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()


@click.group()
@click.version_option(__version__, prog_name="batcher")
def main() -> None:
    """An asynchronous batching inference server."""


def _configuration(config: Path | None, flags: Flags) -> tuple[ServerSettings, Path]:
    read, base = _sources(config, flags)
    return _checked(read), base


def _checked(read: Read) -> ServerSettings:
    try:
        return read()
    except ConfigError as err:
        raise click.ClickException(str(err)) from err


def _sources(config: Path | None, flags: Flags) -> tuple[Read, Path]:
    """Return what reads the settings, each time from the same sources, and the folder that paths in them start from."""
    path = config if config is not None else DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    return partial(load_settings, path, os.environ, flags), path.parent if path else Path()


def _assignments(pairs: tuple[str, ...]) -> Flags:
    flags: Flags = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected KEY=VALUE; got {pair!r}", param_hint="--set")
        steps = tuple(key.split("."))
        flags[steps] = (f"--set {dotted(steps)}", scalar(value))
    return flags


_config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help=f"Configuration file; {DEFAULT_CONFIG} if it is there.",
)
_set_option = click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting, as in defaults.max_batch_size=32.",
)


@main.command()
@_config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 lets the system choose.")
@click.option(
    "--grpc-port",
    type=int,
    help="Port for gRPC, which needs the extra `grpc`; 8081 is the usual one.",
)
@click.option(
    "--access-log/--no-access-log", default=None, help="Log each request as a line of JSON."
)
@_set_option
def serve(config: Path | None, pairs: tuple[str, ...], **given: Any) -> None:
    """Serve the models of the configuration until a signal ends it.

    SIGHUP has the configuration read again.
    """
    flags = _assignments(pairs)
    flags.update(
        {
            (key,): (f"--{key.replace('_', '-')}", value)
            for key, value in given.items()
            if value is not None
        }
    )
    read, base = _sources(config, flags)
    settings = _checked(read)
    from batcher.app.run import (
        leave,
        run_server,
    )  # a command that does not serve needs no event loop

    report = StartReport()
    leave(run_server(settings, base, report.progress, report.ready, report.failed, read))


@main.command()
@_config_option
@_set_option
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a model or a version.",
)
@click.option("--device", help="Device to check the model on, as the setting `device`.")
def check(
    config: Path | None, pairs: tuple[str, ...], model: Path | None, device: str | None
) -> None:
    """Check the configuration and every model.yaml, without loading a model.

    With --model, load that model instead, every version or the one that is named, run its sample at
    several batch sizes, and explain every breach of the contract between model and server.
    """
    if device is not None and model is None:
        raise click.UsageError("--device is for --model")
    flags = _assignments(pairs) | ({("defaults", "device"): ("--device", device)} if device else {})
    settings, base = _configuration(config, flags)
    if model is None:
        _check_configuration(settings, base)
    else:
        _check_model(model, settings, base, {"device": device} if device else {})


def _check_model(
    folder: Path, settings: ServerSettings, base: Path, update: dict[str, str]
) -> None:
    from batcher.app.checking.check import check_version
    from batcher.app.checking.report_text import report_text

    try:
        versions = find_versions(folder, settings, base)
        own = [
            share_threads(settings.for_model(found.name).model_copy(update=update), 1)
            for found in versions
        ]
    except ConfigError as err:
        raise click.ClickException(str(err)) from err
    progress, breaches = StartReport(), 0
    for found, mine in zip(versions, own, strict=True):
        title = f"{found.name}/{found.version}"
        report = check_version(
            found.name, found.version, found.folder, mine, partial(progress.progress, title)
        )
        progress.stop()
        click.echo(report_text(report))
        breaches += report.count("breach")
    if breaches:
        raise click.ClickException(
            f"{breaches} breaches of the contract" if breaches > 1 else "1 breach of the contract"
        )


def _check_configuration(settings: ServerSettings, base: Path) -> None:
    problems = 0
    try:
        folders = find_models(settings, base)
    except ConfigError as err:
        raise click.ClickException(str(err)) from err
    for folder in folders:
        try:
            spec = load_model_definition(folder.name, folder.version, folder.folder).spec
            settings.for_model(folder.name)
        except ConfigError as err:
            problems += 1
            click.echo(f"model {folder.name}/{folder.version}: {err}", err=True)
        else:
            takes = ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.inputs)
            gives = ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.outputs)
            click.echo(
                f"model {folder.name}/{folder.version}: {spec.platform}, takes {takes}, gives "
                f"{gives}"
            )
    if problems:
        raise click.ClickException(f"{problems} of {len(folders)} models cannot be served")
    click.echo(f"the configuration is right; {len(folders)} models")


@main.command(name="compile")
@click.argument("names", metavar="MODEL...", nargs=-1, required=True)
@_config_option
@_set_option
def compile_models(names: tuple[str, ...], config: Path | None, pairs: tuple[str, ...]) -> None:
    """Compile each MODEL of the configuration ahead of time, as `compile: aoti` does at start."""
    settings, base = _configuration(config, _assignments(pairs))
    from batcher.models.loading import compile_ahead  # PyTorch takes seconds to import

    try:
        known = find_models(settings, base)
        unknown = set(names) - {folder.name for folder in known}
        if unknown:
            expected = ", ".join(sorted({folder.name for folder in known}))
            raise ConfigError(f"expected one of {expected}; got {', '.join(sorted(unknown))}")
        for folder in known:
            if folder.name in names:
                definition = load_model_definition(folder.name, folder.version, folder.folder)
                own = share_threads(
                    settings.for_model(folder.name), len(known)
                )  # threads are compiled in
                click.echo(
                    f"model {folder.name}/{folder.version}: {compile_ahead(definition, own)}"
                )
    except BatcherError as err:
        raise click.ClickException(str(err)) from err


@main.command()
@click.argument("url")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for each answer.")
def predict(url: str, files: tuple[Path, ...], timeout: float) -> None:
    """Post each of FILES to URL, a …/predict route, and print the answers as lines of JSON."""
    failures = sum(not _predict_one(url, file, timeout) for file in files)
    if failures:
        raise click.ClickException(f"{failures} of {len(files)} requests failed")


def _predict_one(url: str, file: Path, timeout: float) -> bool:
    try:
        headers = {"Content-Type": format_of_file(file).media_type, "Accept": "application/json"}
    except UnsupportedMediaType as err:
        raise click.ClickException(str(err)) from err
    try:
        with urlopen(Request(url, file.read_bytes(), headers), timeout=timeout) as answer:
            click.echo(answer.read().decode())
            return True
    except HTTPError as err:
        click.echo(f"{file}: {err.code}: {err.read().decode('utf-8', 'replace')}", err=True)
    except (URLError, OSError, ValueError) as err:
        click.echo(f"{file}: {err}", err=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
