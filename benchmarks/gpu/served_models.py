"""The models of `make gpu`, and the settings that they run with.

A setting that this tree does not have is left out, and named in the result. So one script measures
a tree before and after the setting has come.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batcher import ModelSettings, load_model_definition
from batcher.config.model_file import ModelDefinition
from batcher.models.checked import CheckedModel
from batcher.models.loading import load_model
from benchmarks.gpu.figures import DEVICE, DRY
from benchmarks.reporting import ROOT
from benchmarks.serving import MODELS, Running, server_process

PLAIN = re.compile(r"(not compiled|no CUDA graphs): .*?(?=\. It is served|$)")
"""What a load tells when a model has to be served as it is."""

OWN = ROOT / "benchmarks" / "gpu" / "models"
FAST = {"cuda_graphs": True, "dtype": "bf16", "overlap_copies": True}
"""What a model is served with on a GPU, besides the defaults."""


@dataclass(frozen=True)
class Served:
    """A model, and how it is asked.

    Attributes:
        name: of the model.
        folder: of the model, with a folder for version 1.
        max_batch_size: most rows of a batch.
        rows: rows of a request.
        connections: of the closed loop: twice a batch of rows and more, so that the next batch
            waits while one runs.
        settings: settings that this tree may not have yet, by name.
    """

    name: str
    folder: Path
    max_batch_size: int
    rows: int = 1
    connections: int = 256
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def definition(self) -> ModelDefinition:
        """What `model.yaml` says."""
        return load_model_definition(self.name, "1", self.folder / "1")

    @property
    def known_settings(self) -> dict[str, Any]:
        """Those of `settings` that this tree has."""
        return {name: value for name, value in self.settings.items() if is_known(name, value)}

    @property
    def unknown_settings(self) -> str:
        """Those of `settings` that this tree does not have, in words; empty if there are none."""
        known = self.known_settings
        lacking = (f"{each}: {value}" for each, value in self.settings.items() if each not in known)
        return ", ".join(lacking)

    def pairs(self) -> list[str]:
        """Return what `--set` of a server needs to serve the model."""
        own = {
            "path": self.folder / "1",
            "max_batch_size": self.max_batch_size,
            "device": DEVICE,
            **self.known_settings,
        }
        return [f"models.{self.name}.{key}={in_yaml(value)}" for key, value in own.items()]

    def model_settings(self, **more: Any) -> ModelSettings:
        """Return what the model runs with in this process; `more` are further settings."""
        own = {"device": DEVICE, "max_batch_size": self.max_batch_size, "torch_threads": 1}
        return ModelSettings(**{**own, **self.known_settings, **more})

    def load(self, **more: Any) -> CheckedModel:
        """Load and warm up the model in this process; `more` are further settings."""
        return self.load_telling(**more)[0]

    def load_telling(self, **more: Any) -> tuple[CheckedModel, str]:
        """Load as `load`; return besides why the model runs plainly, as `why_plain` does."""
        steps: list[str] = []
        checked = load_model(self.definition, self.model_settings(**more), steps.append)
        return checked, why_plain("\n".join(steps))


def why_plain(log: str) -> str:
    """Return why a model runs without graphs or uncompiled, as its load told; empty if it does not.

    A load goes on without either, so the model's speed alone would not show it.
    """
    found = PLAIN.search(" ".join(log.split()))
    return found[0][:200] if found is not None else ""


@contextmanager
def running(names: Sequence[str], *pairs: str) -> Iterator[Running]:
    """Run this server with the models `names`, settings as `pairs`; its log goes to `GPU_LOGS`."""
    log = Path(os.environ.get("GPU_LOGS", os.devnull))
    with server_process(OWN, f"load_at_start=[{', '.join(names)}]", *pairs, log=log) as server:
        yield server


def is_known(name: str, value: Any) -> bool:
    """Return whether this tree has the setting `name` of a model, with that value."""
    if name not in ModelSettings.model_fields:
        return False
    try:
        ModelSettings(**{name: value})
    except ValidationError:
        return False
    return True


def in_yaml(value: Any) -> str:
    """Return a setting's value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


BATCH = 8 if DRY else 64
RESNET = Served(
    "resnet50",
    OWN / "resnet50",
    BATCH,
    rows=1 if DRY else 4,
    connections=2 * BATCH,
    settings={**FAST, "channels_last": True},
)
BERT = Served("bert", OWN / "bert", BATCH, connections=4 * BATCH, settings=FAST)
MLP = Served("mlp", MODELS / "mlp", 4 * BATCH, settings={"cuda_graphs": True})
MLP50 = Served("mlp50", OWN / "mlp50", BATCH)
MINILM = Served("minilm", ROOT / "models" / "minilm", BATCH)

LOADED = (BERT, RESNET, MLP)
"""The models that are measured over HTTP."""

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "graphs": {"cuda_graphs": True},
    "inductor": {"compile": "inductor"},
    "aoti": {"compile": "aoti"},
}
"""Ways in which a model is run, by settings."""
