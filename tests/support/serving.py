"""A `ModelServer` with real inference threads, stepped by the test through a queue of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Hook, Progress
from batcher.serving.server import ModelServer
from tests.support.crossing import Loop
from tests.support.models import Predict, RecordingModel, checked, double, model_spec, rows

SETTINGS = ModelSettings(
    device="cpu", warmup=False, max_batch_size=4, level_weights=(4.0, 2.0, 1.0), default_priority=2
)


class Serving:
    """A server, its loop, and the models it was given.

    Attributes:
        progress: what the server told of its models.
    """

    def __init__(self, **settings: Any) -> None:
        """Make a server with one CPU thread unless `settings` say otherwise."""
        self.loop = Loop()
        self.progress: list[tuple[str, str]] = []
        self.server = ModelServer(
            self.loop.clock,
            self.loop.call_from_thread,
            ServerSettings(**{"cpu_pool_threads": 1, **settings}),
            progress=lambda title, text: self.progress.append((title, text)),
        )

    def add(
        self,
        name: str = "m",
        version: str = "1",
        *,
        predict: Predict = double,
        preprocess: Hook | None = None,
        postprocess: Hook | None = None,
        spec: ModelSpec | None = None,
        load: Callable[[Progress], Any] | None = None,
        settings: ModelSettings = SETTINGS,
    ) -> Deferred[None]:
        """Begin to load a model that answers with `predict`, or whatever `load` gives."""
        spec = spec or model_spec(name=name, version=version)
        model = RecordingModel(spec, predict)
        model.preprocess, model.postprocess = preprocess, postprocess

        def load_recording(progress: Progress) -> CheckedModel:
            return checked(model)

        definition = ModelDefinition(spec, "python", Path(), Path())
        return self.server.add(definition, settings, load or load_recording)

    def add_ready(self, *arguments: Any, **more: Any) -> None:
        """Load a model and wait until it is ready."""
        assert self.loop.wait_for(self.add(*arguments, **more)) is None

    def infer(
        self,
        *values: float,
        model: str = "m",
        version: str = "",
        inputs: Mapping[str, Array] | None = None,
        **parameters: Any,
    ) -> Deferred[InferenceResponse]:
        """Send one row for each of `values`, or `inputs`; the loop has turned once after it."""
        answer = self.server.infer(
            model, inputs or {"x": rows(*values)}, version, Parameters(**parameters)
        )
        self.loop.clock.advance(0)
        return answer

    def response(self, answer: Deferred[InferenceResponse]) -> InferenceResponse:
        """Wait for an answer that is a response."""
        result = self.loop.wait_for(answer)
        assert not isinstance(result, Failure), result
        return result

    def values(self, answer: Deferred[InferenceResponse]) -> list[float]:
        """Wait for an answer and return the first element of each of its rows."""
        return [float(row[0]) for row in self.response(answer).outputs["y"]]

    def end(self) -> None:
        """Stop the server and wait until its threads have ended."""
        self.loop.wait_for(self.server.stop())
