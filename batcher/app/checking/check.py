"""Holding one version of a model against the contract: read it, load it, run it, note everything.

What can still be looked at after a breach is looked at, so that one look tells all. Last comes the
server's own warm-up, on rows of zeros, unless something is wrong already.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from batcher.app.checking import rules
from batcher.app.checking.batches import BatchCheck
from batcher.app.checking.contract import Findings, Report
from batcher.app.checking.samples import Rows, random_rows, read_sample
from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ClientError, ConfigError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.loading import load_model
from batcher.models.protocol import Progress
from batcher.models.warmup import warm_up

_HINTS = ("not compiled", "hint: ", "warm-up skipped")
"""How that begins which is told while a model is loaded and warmed up, and is worth keeping."""


def check_version(
    name: str,
    version: str,
    folder: Path,
    settings: ModelSettings,
    progress: Progress = lambda text: None,
    seconds: Callable[[], float] = perf_counter,
) -> Report:
    """Check the version of a model that stands in `folder`. Inference thread.

    Args:
        name: the model's name.
        version: its version, a decimal number.
        folder: where its `model.yaml` stands.
        settings: how it is run; batches are at most `max_batch_size`.
        progress: told what is being done.
        seconds: a clock.

    Returns:
        All that was found; nothing is raised, whatever the model does.
    """
    findings, title = Findings(), f"{name}/{version}"
    if not folder.name.isdecimal():
        findings.add(
            rules.FOLDER,
            "folder",
            f"expected a version folder that is named by a number; got {folder.name!r}",
        )
    try:
        definition = load_model_definition(name, version, folder)
    except ConfigError as err:
        findings.add(rules.DEFINITION, "model.yaml", str(err))
        return Report(title, "", findings.all())
    rows = _rows(definition, findings)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        progress(text)

    checked = _load(definition, settings, findings, tell)
    if checked is None:
        return Report(title, "", findings.all())
    timings = BatchCheck(checked.model, findings, tell, seconds).run(rows, settings.max_batch_size)
    if settings.warmup and not findings.has():
        _warm_up(checked, settings.max_batch_size, findings, tell)
    for text in filter(_is_hint, told):
        findings.add(rules.TOLD, "start", text)
    return Report(title, rows.described, findings.all(), timings)


def _is_hint(text: str) -> bool:
    return text.startswith(_HINTS)


def _rows(definition: ModelDefinition, findings: Findings) -> Rows:
    if definition.sample is not None:
        try:
            return read_sample(definition.sample, definition.spec)
        except (ClientError, OSError) as err:
            findings.add(rules.SAMPLE, f"sample {definition.sample.name}", str(err))
    return random_rows(definition.spec)


def _load(
    definition: ModelDefinition, settings: ModelSettings, findings: Findings, tell: Progress
) -> CheckedModel | None:
    try:
        return load_model(definition, settings.model_copy(update={"warmup": False}), tell)
    except ModelLoadError as err:
        if isinstance(err.__cause__, KeyboardInterrupt):
            raise err.__cause__ from None  # whoever waits has had enough
        reason = str(err).partition(": ")[2]
        findings.add(
            rules.LOAD,
            "load",
            f"expected the model to load on device {settings.devices[0]}; got {reason}",
        )
        return None


def _warm_up(
    checked: CheckedModel, max_batch_size: int, findings: Findings, tell: Progress
) -> None:
    try:
        warm_up(checked, max_batch_size, tell)
    except ModelLoadError as err:
        findings.add(rules.WARMUP, "warm-up", f"expected outputs for rows of zeros; got {err}")
        return
    skipped = any(
        tensor.free_axes and tensor.warmup_shape is None for tensor in checked.spec.inputs
    )
    if checked.copies_outputs and not skipped:
        findings.add(
            rules.SHARED,
            "predict",
            "expected new memory for each batch; got memory that was given before",
        )
