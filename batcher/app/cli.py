"""The command line: `batcher serve`, `init`, `check`, `doctor`, `compile`, `predict`, and others.

What only one command needs is imported in that command: PyTorch takes seconds to import, and Klein
must not be imported before `run.py` has chosen the reactor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

import click

from batcher import __version__
from batcher.app.checking.command_line import CheckCommand
from batcher.app.first_process import leave_first_place
from batcher.app.new_model_questions import Answers
from batcher.app.outputs.standard import open_closed_outputs
from batcher.app.posting import post_file
from batcher.app.reloading import Read
from batcher.app.start_report import LoadScreen, StartReport
from batcher.app.target import Flags, Said, target_flags
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.reading import scalar
from batcher.config.settings import ServerSettings, load_settings, share_threads
from batcher.config.yaml_text import dotted
from batcher.errors import BatcherError, ConfigError
from batcher.serving.repository.fetching import find_and_fetch
from batcher.serving.repository.folders import define, find_versions, settings_for
from batcher.serving.repository.listing import ModelFolder

DEFAULT_CONFIG = Path("config.yaml")
LATER = {
    "directory": "directory.command",
    "models": "store_commands",
    "rollout": "rollout_command",
    "run": "jobs.command",
    "simulate": "simulation.command",
    "tune": "tuning.command",
}
"""Commands that are files of their own, imported when they are asked for."""


class Commands(click.Group):
    """The commands below, and those that are imported only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *LATER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        if cmd_name in LATER:
            module = import_module(f"batcher.app.{LATER[cmd_name]}")
            found: click.Command = getattr(module, f"{cmd_name}_command")
            return found
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="batcher")
def main() -> None:
    """An asynchronous batching inference server."""
    open_closed_outputs()


def _configuration(config: Path | None, flags: Flags) -> tuple[ServerSettings, Path]:
    """Return the settings, and the folder that paths in them start from."""
    read, base = _sources(config, flags)
    return _checked(read), base


def _checked(read: Read) -> ServerSettings:
    try:
        return read()
    except ConfigError as err:
        raise click.ClickException(str(err)) from err


def _sources(
    config: Path | None, flags: Flags, default: Path | None = DEFAULT_CONFIG
) -> tuple[Read, Path]:
    """Return a function that reads the settings, and the folder that paths in them start from.

    `default` is the configuration file that is read if it is there, where no other is named.
    """
    if default is not None and not default.is_file():
        default = None
    path = config if config is not None else default
    # From here on no path depends on the working directory, which a model may change.
    path = path.absolute() if path is not None else None
    base = path.parent if path is not None else Path.cwd()
    return partial(load_settings, path, os.environ, flags), base


def _assignments(pairs: tuple[str, ...]) -> Flags:
    flags: Flags = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected KEY=VALUE; got {pair!r}", param_hint="--set")
        steps = tuple(key.split("."))
        flags[steps] = (f"--set {dotted(steps)}", scalar(value))
    return flags


def _target_flags(target: str | None, said: Said, alone: bool) -> Flags:
    """Return the settings for a target; `said` is what options say."""
    if target is None:
        if any(said):
            raise click.UsageError("--name, --input, --output and --sample are for a TARGET")
        return {}
    try:
        return target_flags(target, said, alone)
    except ConfigError as err:
        raise click.ClickException(str(err)) from err


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
@click.argument("target", required=False)
@_config_option
@click.option("--name", help="Name of the model in TARGET; that of the file or folder if left out.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=DTYPE[SHAPE]",
    help="An input of the file, as x=FP32[784]; the shape of one row, -1 where any size will do.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME=DTYPE[SHAPE]",
    help="An output of the file; without it the model runs once to show its outputs.",
)
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A first example that shows the inputs of the file: .npy, .npz or .json.",
)
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
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Write the log for people (text), or for programs, one JSON object a line.",
)
@_set_option
def serve(target: str | None, config: Path | None, pairs: tuple[str, ...], **options: Any) -> None:
    """Serve TARGET, or the models of the configuration, until a signal ends it.

    TARGET is a file (net.onnx, net.pt2, net.pt, model.py or model.py:Class), the folder of a model,
    a repository, or the address of one in a store. SIGHUP has configuration and files read again.
    """
    open_closed_outputs()  # here too, since `serve.py` calls this command alone
    leave_first_place()
    if sys.stderr.isatty():  # what is imported below takes seconds, and a log has its own lines
        click.echo(f"batcher {__version__} is starting …", err=True)
    said = Said(*(options.pop(key) for key in Said._fields))
    flags = _target_flags(target, said, config is None) | _assignments(pairs)
    if target is not None and config is None and DEFAULT_CONFIG.is_file():
        click.echo(f"{DEFAULT_CONFIG} is not read; -c {DEFAULT_CONFIG} reads it", err=True)
    for key, value in options.items():
        if value is not None:
            flags[key,] = (f"--{key.replace('_', '-')}", value)
    read, base = _sources(config, flags, DEFAULT_CONFIG if target is None else None)
    settings = _checked(read)
    # Here, since no other command needs an event loop.
    from batcher.app.run import leave, run_server

    leave(run_server(settings, base, StartReport(settings.log_format, target is not None), read))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--from", "source", help="The model's file, as for `batcher serve`; it is copied.")
@click.option(
    "--kind",
    type=click.Choice(["class", "module"]),
    help="Without a file: a class with predict (the default), or a torch.nn.Module.",
)
@click.option("--input", "inputs", multiple=True, metavar="NAME=DTYPE[SHAPE]", help="An input.")
@click.option("--output", "outputs", multiple=True, metavar="NAME=DTYPE[SHAPE]", help="An output.")
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A first example that shows the inputs of the file: .npy, .npz or .json.",
)
def init(folder: Path, sample: Path | None, **said: Any) -> None:
    """Write the FOLDER of a model: model.yaml, the class or file, a sample, and a test.

    What no option says is asked for at a terminal; elsewhere defaults are taken.
    """
    from batcher.app.new_model import Wanted, write_folder

    try:
        asked = Answers(**said).asked(sys.stdin is not None and sys.stdin.isatty())
        names = write_folder(folder, Wanted(sample=sample, **asked))
    except ConfigError as err:
        raise click.ClickException(str(err)) from err
    click.echo(f"{folder} has {', '.join(names)}")
    if any(name.endswith(".py") and name not in ("model.py", "test_model.py") for name in names):
        click.echo("Copy there also what the code opens by itself: its weights, vocabularies, …")
    click.echo("\nNext:")
    for command in ("batcher serve", "batcher check --model", "pytest"):
        click.echo(f"  {command} {quote(str(folder))}")
    if find_spec("pytest") is None:
        click.echo("The last line needs pytest: pip install pytest")


@main.command(cls=CheckCommand)
@_config_option
@_set_option
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Folder of a model or a version, or one file.",
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
        from batcher.app.checking.configuration import check_configuration

        check_configuration(settings, base)
    else:
        _check_model(model, settings, base, {"device": device} if device else {})


def _check_model(
    folder: Path, settings: ServerSettings, base: Path, update: dict[str, str]
) -> None:
    from batcher.app.checking.check import check_version
    from batcher.app.checking.report_text import report_text

    try:
        versions = find_versions(folder, settings, base)
        # All are read before the first is checked, so that a wrong setting is found at once.
        own = [settings_for(found, settings).model_copy(update=update) for found in versions]
    except ConfigError as err:
        raise click.ClickException(str(err)) from err
    screen, breaches = LoadScreen(), 0
    for found, model_settings in zip(versions, own, strict=True):
        name, version = found.name, found.version
        progress = partial(screen.progress, f"{name}/{version}")
        mine = share_threads(model_settings, model_settings.instances)
        read = _definer(found, mine)
        file = found.single.file.name if found.single else ""
        report = check_version(name, version, found.folder, mine, progress, define=read, file=file)
        screen.stop()
        click.echo(report_text(report))
        breaches += report.count("breach")
    if breaches:
        raise click.ClickException(f"{breaches} breach{'es' * (breaches > 1)} of the contract")


def _definer(
    found: ModelFolder, settings: ModelSettings
) -> Callable[[str, str, Path], ModelDefinition]:
    """Return what reads the definition of what was `found`."""
    return lambda name, version, folder: define(found, settings.trusted)


@main.command(name="compile")
@click.argument("names", metavar="MODEL...", nargs=-1, required=True)
@_config_option
@_set_option
def compile_models(names: tuple[str, ...], config: Path | None, pairs: tuple[str, ...]) -> None:
    """Compile each MODEL of the configuration ahead of time, as `compile: aoti` does at start."""
    settings, base = _configuration(config, _assignments(pairs))
    from batcher.models.loading import compile_ahead

    try:
        known = find_and_fetch(settings, base).folders
        unknown = set(names) - {folder.name for folder in known}
        if unknown:
            expected = ", ".join(sorted({folder.name for folder in known}))
            raise ConfigError(f"expected one of {expected}; got {', '.join(sorted(unknown))}")
        instances = sum(settings_for(folder, settings).local_instances for folder in known)
        for folder in known:
            if folder.name in names:
                # As at start: the number of threads is compiled in.
                own = share_threads(settings_for(folder, settings), instances)
                definition = define(folder, own.trusted)
                outcome = compile_ahead(definition, own)
                click.echo(f"model {folder.name}/{folder.version}: {outcome}")
    except BatcherError as err:
        raise click.ClickException(str(err)) from err


@main.command()
@_config_option
@_set_option
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")
def doctor(config: Path | None, pairs: tuple[str, ...], as_json: bool) -> None:
    """Say what is there (PyTorch, compiler, extras, limits, ports), and what that means.

    The exit status is 1 if something keeps the server from starting as it is configured.
    """
    from batcher.app import doctor

    try:
        read, base = _sources(config, _assignments(pairs))
        findings = doctor.examine(read(), base)
    except ConfigError as err:
        findings = [doctor.Finding("configuration", "problem", str(err))]
        findings += doctor.examine(ServerSettings())
    text = doctor.report_json(findings) if as_json else doctor.report_text(findings)
    click.echo(text)
    sys.exit(int(doctor.has_problem(findings)))


@main.command()
@click.argument("url")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for each answer.")
def predict(url: str, files: tuple[Path, ...], timeout: float) -> None:
    """Post each of FILES to URL, a …/predict route, and print the answers as lines of JSON."""
    failures = sum(not post_file(url, file, timeout) for file in files)
    if failures:
        raise click.ClickException(f"{failures} of {len(files)} requests failed")


if __name__ == "__main__":
    sys.exit(main())
