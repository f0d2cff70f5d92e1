"""`batcher check` without a model: whether the models of a configuration can be served.

Models are read and not loaded, so that the check takes a moment and runs no code of a folder.
"""

from __future__ import annotations

from pathlib import Path

import click

from batcher.app.checking.entry import check_entry
from batcher.app.checking.pipelines import check_pipeline
from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.repository.fetching import find_and_fetch
from batcher.serving.repository.folders import define, settings_for
from batcher.serving.repository.listing import ModelFolder
from batcher.serving.repository.repository import NO_MODEL


def check_configuration(settings: ServerSettings, base: Path) -> None:
    """Write what each model takes and gives; `base` is the folder that paths start from.

    Raises:
        ClickException: there is no model, or one cannot be served.
    """
    try:
        listing = find_and_fetch(settings, base)
    except ConfigError as err:
        raise click.ClickException(str(err)) from err
    for warning in listing.warnings():
        click.echo(warning, err=True)
    folders = listing.folders
    definitions = [_check_definition(folder, settings) for folder in folders]
    problems = definitions.count(None) + _pipeline_problems(
        [each for each in definitions if each is not None], settings
    )
    if problems:
        raise click.ClickException(f"{problems} of {len(folders)} models cannot be served")
    if not folders and settings.model_control == "none":
        raise click.ClickException(f"the model repository is {NO_MODEL}")
    plural = "" if len(folders) == 1 else "s"
    click.echo(f"the configuration is right; {len(folders)} model{plural}")


def _pipeline_problems(definitions: list[ModelDefinition], settings: ServerSettings) -> int:
    """Write what is wrong with pipelines among all `definitions`; return how many are wrong."""
    known: dict[str, list[ModelDefinition]] = {}
    for each in definitions:
        known.setdefault(each.spec.name, []).append(each)
    problems = 0
    for each in definitions:
        if each.plan is not None:
            try:
                check_pipeline(each, known, settings)
            except ConfigError as err:
                click.echo(f"model {each.spec.name}/{each.spec.version}: {err}", err=True)
                problems += 1
    return problems


def _check_definition(folder: ModelFolder, settings: ServerSettings) -> ModelDefinition | None:
    """Write what the model in `folder` takes and gives, and return it; or write what is wrong."""
    title = f"{folder.name}/{folder.version}"
    try:
        definition = check_entry(define(folder, settings_for(folder, settings).trusted))
    except ConfigError as err:
        click.echo(f"model {title}: {err}", err=True)
        return None
    spec = definition.spec
    inputs = ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.inputs)
    outputs = ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.outputs)
    click.echo(f"model {title}: {spec.platform}, takes {inputs}, gives {outputs}")
    for note in definition.notes:
        click.echo(f"  note: {note}")
    return definition
