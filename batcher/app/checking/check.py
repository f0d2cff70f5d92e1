"""Check one version of a model: read it, load it, run it, and note every breach.

    folder name -> model.yaml -> sample -> load -> rows alone and in batches -> warm-up

A check goes on after a breach wherever the next step is still possible, so that one check names
everything that is wrong. Without a readable `model.yaml`, or when the model cannot be loaded, no
step is left. Last comes the server's own warm-up, on rows of zeros. Warm-up is skipped after any
breach, because it would mostly fail for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from batcher.app.checking import rules
from batcher.app.checking.batches import BatchCheck
from batcher.app.checking.contract import Finding, Findings, Report
from batcher.app.checking.runs import reason
from batcher.app.checking.samples import random_rows, rows_of_sample
from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.core.names import is_number
from batcher.core.spec import ModelSpec
from batcher.errors import ClientError, ConfigError, ModelContractError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.lacking import InputNeeded
from batcher.models.loading import load_model
from batcher.models.protocol import Progress
from batcher.models.sample import Sample, sample_of_file
from batcher.models.uneven_lengths import check_uneven_lengths
from batcher.models.warmup import warm_up
from batcher.serving.repository.left_out import is_like_version

_HINT_BEGINNINGS = ("not compiled", "hint: ", "note: ", "warm-up skipped")
"""Progress texts that begin so stand in the report as notes; the others only show progress."""

_OF_PIPELINE = (
    "hint: the steps of a pipeline were read; whether they go with its models shows `batcher "
    "check` without --model, and each model is checked by itself"
)


def check_version(
    name: str,
    version: str,
    folder: Path,
    settings: ModelSettings,
    progress: Progress = lambda text: None,
    seconds: Callable[[], float] = perf_counter,
    define: Callable[[str, str, Path], ModelDefinition] = load_model_definition,
    file: str = "",
) -> Report:
    """Return all that is found out about a version; nothing is raised. Inference thread.

    Args:
        name: the model's name.
        version: the model's version, a decimal number.
        folder: the folder that holds `model.yaml`.
        settings: how the model is run; batches are at most `max_batch_size` rows.
        progress: is called before each step, with the step in words.
        seconds: a clock.
        define: reads the definition of the name and version in the folder; raises ConfigError.
        file: name of the one file that the model is, without a `model.yaml`; empty for a folder.
    """
    return _Check(settings, progress, seconds, define, file).run(name, version, folder)


def _lone_sizes(spec: ModelSpec, has_preprocess: bool) -> str:
    """Return a hint if requests of different sizes share no batch, though they might."""
    free = [tensor.name for tensor in spec.required if tensor.free_axes]
    # Requests are put together as `preprocess` has made them, often of one size.
    if not free or spec.is_padded or has_preprocess:
        return ""
    return (
        f"hint: requests of different sizes of {', '.join(free)} share no batch. If the model can "
        "take padded rows, write `pad: 0` beside the input's shape (docs/ragged.md)"
    )


class _Check:
    """One check of one version; collects the findings and hints of its steps."""

    def __init__(
        self,
        settings: ModelSettings,
        progress: Progress,
        seconds: Callable[[], float],
        define: Callable[[str, str, Path], ModelDefinition],
        file: str,
    ) -> None:
        self._define = define
        self._file = file
        self._settings = settings
        self._progress = progress
        self._seconds = seconds
        self._findings = Findings()
        self._hints: list[str] = []

    def run(self, name: str, version: str, folder: Path) -> Report:
        title, findings = f"{name}/{version}", self._findings
        definition = self._definition(name, version, folder)
        if definition is None:
            return Report(title, "", self._all())
        sample = self._sample(definition)
        # A sample that cannot be read is a breach of its own, and must not stop the load.
        checked = self._load(replace(definition, sample=None))
        if checked is None:
            return Report(title, "", self._all())
        if sample is not None:
            checked.sample = sample
        name = definition.sample.name if sample and definition.sample else "the class's sample"
        spec = definition.spec
        rows = rows_of_sample(checked.sample, name, spec) if checked.sample else random_rows(spec)
        batches = BatchCheck(checked.model, findings, self._report, self._seconds)
        timings = batches.run(rows, checked.largest(self._settings.max_batch_size))
        self._check_lengths(checked, checked.sample or rows.own[0])
        if self._settings.warmup and not findings.has():
            self._warm_up(checked)
        if lone := _lone_sizes(spec, checked.model.preprocess is not None):
            findings.add(rules.HINT, "inputs", lone)
        for text in self._hints:
            findings.add(rules.HINT, "start", text)
        return Report(title, rows.description, self._all(), timings)

    def _all(self) -> tuple[Finding, ...]:
        findings = self._findings.all()
        return tuple(map(rules.of_file, findings)) if self._file else findings

    def _report(self, text: str) -> None:
        """Pass `text` on to the caller's `progress`, and keep it if it is a hint."""
        if text.startswith(_HINT_BEGINNINGS):
            self._hints.append(text)
        self._progress(text)

    def _definition(self, name: str, version: str, folder: Path) -> ModelDefinition | None:
        if is_like_version(folder.name) and not is_number(folder.name):
            self._findings.add(
                rules.FOLDER,
                "folder",
                f"expected a version folder that is named by a number; got {folder.name!r}",
            )
        try:
            definition = self._define(name, version, folder)
        except ConfigError as err:
            rule = rules.FILE if self._file else rules.DEFINITION
            self._findings.add(rule, self._file or "model.yaml", str(err))
            return None
        if definition.plan is not None:
            self._findings.add(rules.HINT, "steps", _OF_PIPELINE)
            return None
        return definition

    def _sample(self, definition: ModelDefinition) -> Sample | None:
        """Return the sample that `model.yaml` names; None if there is none that can be read."""
        if definition.sample is None:
            return None
        try:
            return sample_of_file(definition.sample, definition.spec, definition.is_single)
        except (ClientError, ConfigError, OSError) as err:
            self._findings.add(rules.SAMPLE, f"sample {definition.sample.name}", str(err))
            return None

    def _load(self, definition: ModelDefinition) -> CheckedModel | None:
        # Without warm-up: a check of the contract says more about a breach.
        settings = self._settings.model_copy(update={"warmup": False})
        try:
            return load_model(definition, settings, self._report)
        except ModelLoadError as err:
            if isinstance(err.__cause__, KeyboardInterrupt):
                raise err.__cause__ from None  # the user pressed Ctrl-C: end, without a report
            reason = str(err).partition(": ")[2]
            self._findings.add(
                rules.LOAD,
                "load",
                f"expected the model to load on device {settings.devices[0]}; got {reason}",
            )
            return None

    def _check_lengths(self, checked: CheckedModel, sample: Sample) -> None:
        """Run rows of unequal lengths, also where the settings leave warm-up out."""
        if self._findings.has():
            return
        largest = checked.largest(self._settings.max_batch_size)
        try:
            if note := check_uneven_lengths(checked.model, largest, sample):
                self._report(f"note: {note}")
        except ModelContractError as err:
            self._findings.add(rules.LENGTHS, "outputs", str(err))
        except (Exception, SystemExit) as err:
            self._report(f"note: rows of other lengths than the sample's may fail: {reason(err)}")

    def _warm_up(self, checked: CheckedModel) -> None:
        try:
            settings = self._settings
            warm_up(checked, settings.max_batch_size, self._report, settings.max_batch_elements)
        except InputNeeded as err:
            self._findings.add(rules.LACKS, "warm-up", str(err))
            return
        except ModelLoadError as err:
            kind = "of zeros" if checked.sample is None else "of the sample"
            message = f"expected outputs for rows {kind}; got {err}"
            self._findings.add(rules.WARMUP, "warm-up", message)
            return
        if checked.shares_outputs:
            self._findings.add(
                rules.SHARED,
                "predict",
                "expected new memory for each batch; got memory that was given before",
            )
