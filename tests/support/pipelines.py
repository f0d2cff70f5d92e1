"""A server with models of a few lines and a pipeline of them, stepped by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.serving.model_version import ModelVersion
from tests.support.models import Predict, double
from tests.support.serving import SETTINGS, Serving

CHAIN = """
format: pipeline
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4], from: second.y}]
steps:
  - name: first
    model: one
    inputs: {x: x}
  - name: second
    model: two
    inputs: {x: first.y}
"""
"""Two models in a row: both take `x` and give `y`."""

CASCADE = """
format: pipeline
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4], from: large.y}]
steps:
  - name: small
    model: one
    inputs: {x: x}
  - name: large
    model: two
    inputs: {x: x}
    when: max(small.y) < 10
    else: {y: small.y}
"""
"""The second model gets the rows of which the first one is not sure."""


def write_pipeline(folder: Path, text: str, name: str = "p", version: str = "1") -> Path:
    """Write `text` as the `model.yaml` of a version below `folder`; return the version's folder."""
    own = folder / name / version
    own.mkdir(parents=True, exist_ok=True)
    (own / "model.yaml").write_text(text)
    return own


def definition(folder: Path, text: str, name: str = "p", version: str = "1") -> ModelDefinition:
    """Return the definition of a pipeline with `text` for its `model.yaml`."""
    own = write_pipeline(folder, text, name, version)
    return load_model_definition(name, version, own)


class Pipelines(Serving):
    """A server with models and a pipeline `p` of them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """Write the files of pipelines below `folder`."""
        super().__init__(**settings)
        self.folder = folder

    def model(self, name: str, predict: Predict = double, **more: Any) -> None:
        """Load a model that takes `x` and gives `y`, four floats a row."""
        self.add_ready(name, predict=predict, **more)

    def pipeline(
        self, text: str = CHAIN, name: str = "p", settings: ModelSettings = SETTINGS
    ) -> Deferred[None]:
        """Begin to load a pipeline."""
        return self.server.add(definition(self.folder, text, name), settings)

    def ready(self, text: str = CHAIN, **more: Any) -> ModelVersion:
        """Load a pipeline and wait until it is ready."""
        assert self.loop.wait_for(self.pipeline(text, **more)) is None
        return self.server.find(more.get("name", "p"))

    def turn(self) -> None:
        """Let the loop turn, as often as one change follows from another."""
        for _ in range(3):
            self.loop.clock.advance(0)


def of_two(folder: Path, one: Predict = double, two: Predict = double, **more: Any) -> Pipelines:
    """Return a server with the models `one` and `two`, without a pipeline."""
    pipelines = Pipelines(folder, **more)
    pipelines.model("one", one)
    pipelines.model("two", two)
    return pipelines
