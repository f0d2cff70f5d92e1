"""The engine, as fronts see it: a few methods of whatever holds the models.

In a program of one process the engine is `ModelServer`. A front in a process of its own will hold a
proxy of an engine elsewhere instead, so endpoints know these few methods and no more.

A front asks the engine for a servable once for all requests that are alike, and keeps the servable
until the epoch is over. Each request then is one call of `Servable.infer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from batcher.core.epoch import Epoch
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.errors import BatcherError
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_version import ModelVersion
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.repository.repository import ListedVersion
from batcher.serving.servable import Servable


class Canary(Protocol):
    """The trial of a new version of one model. Reactor thread."""

    def status(self) -> dict[str, Any]:
        """Return where the trial is, with its figures, as a value that JSON can hold."""

    def promote(self) -> None:
        """Send all requests to the new version; raises InvalidInput or ModelNotReady."""

    def abort(self) -> None:
        """Send no request to the new version; raises InvalidInput or ModelNotReady."""


class Traffic(Protocol):
    """Says what answers a request. Reactor thread."""

    def canary(self, name: str) -> Canary:
        """Return the trial of a model; raises UnknownModel or InvalidInput."""

    def servable(self, name: str, version: str = "") -> Servable:
        """Return what answers requests for a version, by number or label, or for a model's name.

        Raises UnknownModel, Draining or ModelNotReady.
        """


class Engine(Protocol):
    """Finds the model version for a request, and describes the models. Reactor thread.

    Attributes:
        metrics: numbers of requests and batches.
        seconds: the clock.
        left_out: why something in the model repository is not served, by its path there.
        fetcher: fetches files that clients name in place of inputs.
    """

    metrics: ServerMetrics
    seconds: Callable[[], float]
    left_out: dict[str, str]
    fetcher: InputFetcher

    @property
    def traffic(self) -> Traffic:
        """What says what answers a request."""

    @property
    def epoch(self) -> Epoch:
        """Ends whenever a model comes, goes or changes its state."""

    @property
    def ending(self) -> bool:
        """Whether the engine is about to end: it is not ready, though it may take requests."""

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""

    def ready_model(self, name: str, version: str = "") -> ModelVersion:
        """Return a version that can answer now; raises UnknownModel, Draining or ModelNotReady."""

    def infer(
        self, model: str, inputs: Mapping[str, Array], version: str, parameters: Parameters
    ) -> Deferred[InferenceResponse]:
        """Answer one request; every error comes by the Deferred."""

    def find(self, name: str, version: str = "") -> ModelVersion:
        """Return a version in whatever state; raises UnknownModel."""

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that can answer, ascending."""

    def only_model(self) -> str:
        """Return the name of the only model there is; raises UnknownModel."""

    def unready(self, public: bool = False) -> dict[str, str]:
        """Return the reason of every model that should serve and does not, by its title.

        With `public`, only what clients may read of the reasons.
        """

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever an epoch has ended."""


def versions_of(engine: Engine, name: str, version: str) -> list[ModelVersion]:
    """Return one version of a model, or without `version` every version, in whatever state.

    Raises UnknownModel. Reactor thread.
    """
    found = engine.find(name, version)
    return [found] if version else [each for each in engine if each.spec.name == name]


def model_named(engine: Engine, text: str) -> str:
    """Return the name of the model that `text` in a request means; empty if there is none.

    No text means the only model there is. Reactor thread.
    """
    try:
        return engine.find(text).spec.name if text else engine.only_model()
    except BatcherError:
        return ""


class ModelControl(Protocol):
    """Lists the models of the repository, loads and unloads them. Reactor thread.

    Attributes:
        controlled: whether clients may load and unload models.
    """

    controlled: bool

    def check_controlled(self) -> None:
        """Check that clients may load and unload models; raises Forbidden."""

    def versions(self) -> Deferred[list[ListedVersion]]:
        """Return every version that the server knows, or that clients may load.

        Fails with ModelNotReady if the repository cannot be read.
        """

    def load(self, name: str, overrides: dict[str, Any]) -> Deferred[None]:
        """Serve every version of a model as it is on disk now, with some settings overridden."""

    def unload(self, name: str) -> Deferred[None]:
        """Take every version of a model out of service."""
