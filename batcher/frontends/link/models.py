"""What a front process knows of the models: enough to decode requests, and nothing of how they run.

The engine describes what answers each name, version and label, whenever a model comes, goes or
changes its state. A description is a *generation*. A request names the generation that its front
knew: where the engine has a newer one, the request is looked at again, as in one process a request
is whose model was replaced while its body was decoded. The front writes the answer as it knew the
model, so a model that has other outputs by now refuses the request.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from batcher.core.decoding_limits import DecodingLimits
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import BatcherError
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.link.frames import Message
from batcher.frontends.link.messages import MODELS
from batcher.serving.servable import Servable, check_outputs

KEPT_GENERATIONS: Final = 16
"""Generations whose specifications are kept: a front is behind by one or two, for a moment."""

Key = tuple[str, str]
"""Name of a model, and the version or label that a request names; empty for the newest."""

Labels = Callable[[str], Iterable[str]]
"""Returns the labels of the versions of a model."""

InferFitting = Callable[[Mapping[str, Array], int, Parameters], Deferred[InferenceResponse]]
"""Answers one request of so many rows; raises and fails as `Servable.infer`."""

CallSoon = Callable[[Callable[[], object]], object]
"""Calls a function in the next turn of the loop, as `loop.call_soon` does."""


class Described(NamedTuple):
    """What a front has to know of a servable; attributes as of `Servable`."""

    spec: ModelSpec
    max_level: int
    timeout: float
    reads_key: bool
    reads_client: bool
    reads_freshness: bool
    reads_once: bool
    picks_version: bool
    limits: DecodingLimits


class KnownModels:
    """What all fronts know of the models of the engine. Reactor thread.

    Attributes:
        message: tells a front.
    """

    def __init__(
        self,
        engine: Engine,
        labels: Labels,
        call_soon: CallSoon,
        tell_all: Callable[[Message], None],
    ) -> None:
        """Describe the models of `engine` now, and by `tell_all` whenever they change."""
        self._engine, self._labels, self._call_soon = engine, labels, call_soon
        self._tell_all = tell_all
        self._generation = 0
        self._servables: dict[Key, Servable] = {}
        self._specs: dict[int, dict[Key, ModelSpec]] = {}  # by generation
        self._due = False  # whether fronts will hear of a change at the end of this turn
        self.message: Message = ()
        self._describe()
        engine.watch(self._changed)

    def infer_for(self, generation: int, key: Key) -> InferFitting:
        """Return what answers requests that were decoded for `key` as `generation` describes it."""
        found = self._servables.get(key) if generation == self._generation else None
        # What their front knew is still true: nothing has to be looked at again.
        if found is not None and not self._due:
            return found.infer_fitting
        return partial(self._look_again, self._specs.get(generation, {}).get(key), key)

    def _look_again(
        self,
        known: ModelSpec | None,
        key: Key,
        inputs: Mapping[str, Array],
        rows: int,
        parameters: Parameters,
    ) -> Deferred[InferenceResponse]:
        servable = self._engine.traffic.servable(*key)
        check_outputs(known, servable.spec)
        return servable.infer(inputs, parameters)

    def _changed(self) -> None:
        # Many models may change in one turn, as at a reload.
        if not self._due:
            self._due = True
            self._call_soon(self._tell)

    def _tell(self) -> None:
        self._due = False
        self._describe()
        self._tell_all(self.message)

    def _describe(self) -> None:
        self._generation += 1
        self._servables = find_servables(self._engine, self._labels)
        self._specs[self._generation] = {key: each.spec for key, each in self._servables.items()}
        self._specs.pop(self._generation - KEPT_GENERATIONS, None)
        only = ""
        with suppress(BatcherError):
            only = self._engine.only_model()
        self.message = (MODELS, self._generation, describe(self._servables, only))


def find_servables(engine: Engine, labels: Labels) -> dict[Key, Servable]:
    """Return what answers now, by every name with which a request may ask for it."""
    versions: dict[str, list[str]] = {}
    for each in engine:
        versions.setdefault(each.spec.name, []).append(each.spec.version)
    found = {}
    for name, numbers in versions.items():
        for asked in ("", *numbers, *labels(name)):
            try:
                found[name, asked] = engine.traffic.servable(name, asked)
            except BatcherError:
                continue  # the engine itself says why, to whoever asks
    return found


def describe(servables: dict[Key, Servable], only: str) -> bytes:
    """Return what fronts have to know of `servables`; `only` is the name of the only model."""
    # Two keys of one servable share its description.
    known = {id(each): _described(each) for each in servables.values()}
    return pickle.dumps(
        ({key: known[id(each)] for key, each in servables.items()}, only), pickle.HIGHEST_PROTOCOL
    )


def _described(servable: Servable) -> Described:
    return Described(*(getattr(servable, name) for name in Described._fields))


def read_models(data: bytes) -> tuple[dict[Key, Described], str]:
    """Return what `describe` has written."""
    found: tuple[dict[Key, Described], str] = pickle.loads(data)  # of the engine, by its own socket
    return found
