"""One version of a model while it is served: its workers, its queue, and its life.

    LOADING ──► READY ◄──► RESTARTING      (a worker is started again: requests wait)
       │          │  ▲          │
       │          ▼  │          ▼
       │        BROKEN ◄--------┘          (no worker may come: requests are refused)
       ├──► FAILED
       └──► UNLOADING ──► UNLOADED         (also from READY, RESTARTING and BROKEN)

STOPPED follows every state but UNLOADED: the server ends. `STATES` is the whole table. A step that
the table does not allow is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from functools import partial

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from batcher.batching.worker import Condition
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.states import StateTable
from batcher.core.waiters import Waiters
from batcher.errors import Draining, ModelNotReady
from batcher.models.load_steps import AFTER_LOAD, COMPILING
from batcher.models.protocol import Arrays, LoadedModel
from batcher.serving.assembly import Assembly
from batcher.serving.caching.content import content_of
from batcher.serving.caching.inputs import decoded_inputs
from batcher.serving.servable import Servable
from batcher.serving.version_stages import version_stages
from batcher.workers.making import instances_of
from batcher.workers.thread import ModelLoader


class ModelState(Enum):
    """Where a version of a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    """No worker takes batches, but one is being started again: requests wait."""
    BROKEN = "broken"
    """No worker takes batches, and none may ever again: requests are refused."""
    FAILED = "failed"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    STOPPED = "stopped"


_END = (ModelState.UNLOADED, ModelState.STOPPED)
_LEAVING = (ModelState.UNLOADING, ModelState.STOPPED)
STATES = StateTable(
    {
        ModelState.LOADING: (ModelState.READY, ModelState.FAILED, *_LEAVING),
        ModelState.READY: (ModelState.RESTARTING, ModelState.BROKEN, *_LEAVING),
        ModelState.RESTARTING: (ModelState.READY, ModelState.BROKEN, *_LEAVING),
        ModelState.BROKEN: (ModelState.READY, ModelState.RESTARTING, *_LEAVING),
        ModelState.FAILED: _END,
        ModelState.UNLOADING: _END,
        ModelState.UNLOADED: (),
        ModelState.STOPPED: (),
    },
    "{owner}: {old} cannot become {new}",
)
"""From each state, the states that may follow."""

GONE = frozenset({ModelState.UNLOADING, ModelState.UNLOADED})
"""States of a version that was taken out of service on purpose."""

LEFT = GONE | {ModelState.STOPPED}
"""States of a version that answers nothing more, or is about to."""

_PRIVATE = frozenset({ModelState.FAILED, ModelState.RESTARTING, ModelState.BROKEN})
"""States whose detail is the operator's: it may hold paths, exceptions of the model, tracebacks."""

_COMPUTING = frozenset({ModelState.READY, ModelState.RESTARTING, ModelState.UNLOADING})
"""States whose batches come to an end."""

_NO_TIMINGS: Mapping[int, float] = {}
_PASSING = frozenset({ModelState.LOADING, ModelState.UNLOADING})
_LOADED = {
    Condition.ALIVE: ModelState.READY,
    Condition.RESTARTING: ModelState.RESTARTING,
    Condition.DEAD: ModelState.BROKEN,
}
"""The state of a model that has been loaded, by the condition of its workers."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Keeper(ABC):
    """What a model version asks of whoever keeps it. Reactor thread."""

    @abstractmethod
    def changed(self, version: ModelVersion) -> None:
        """Hear that `version` has changed its state."""

    @abstractmethod
    def reported(self, version: ModelVersion, text: str) -> None:
        """Hear what `version` does while it loads, in words."""

    @abstractmethod
    def ended(self, version: ModelVersion) -> None:
        """Hear that the workers of `version` have ended."""

    @abstractmethod
    def successor(self, version: ModelVersion) -> ModelVersion:
        """Return what takes requests in place of `version`; `version` itself if nothing does."""


class ModelVersion(Servable):
    """One version of a model with its workers and its scheduler. Reactor thread.

    Attributes:
        definition: what the version is made of.
        settings: how the version is run.
        required: whether the server is not ready without this version.
        state: where the version is in its life.
        detail: what the version is doing or why it failed, in words.
        one_call: whether a batch takes the interpreter lock of this process but once, or never.
        sample: one row of inputs that the model's author has named; None if there is none.
        load_s: seconds that the load has taken, without the wait for its turn.
        timings: seconds that warm-up took for a batch, by the rows of the batch.
        adopted: whether the version serves, or has served; one that is loaded beside it does not.
        workers: they run the batches.
        scheduler: the queue of requests, and the policy that makes batches of them.
        autoscaler: has workers come and go; None where their number does not change.

    Args:
        definition: what the version is made of.
        settings: how the version is run.
        parts: makes workers and scheduler.
        keeper: hears of every change.
        load: loads the model on the inference thread; None loads what `definition` says.
        required: whether the server is not ready without this version.

    Raises ConfigError at its making: the settings need an extra that is not installed.
    """

    sample: Arrays | None = None
    _began: float | None = None
    """When the load began, in seconds on the clock; None before."""

    load_s = 0.0
    adopted = False

    def __init__(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        parts: Assembly,
        keeper: Keeper,
        load: ModelLoader | None = None,
        required: bool = True,
    ) -> None:
        """Start in LOADING; nothing is loaded before `start`."""
        spec, seconds = definition.spec, parts.clock.seconds
        self._content = content_of(definition, settings, load is None, parts.pools)
        super().__init__(spec, settings.bulk_level, settings.timeout, parts.pools, seconds)
        self.limits = DecodingLimits(settings.max_queue_rows, settings.max_queue_bytes)
        self.definition, self.settings = definition, settings
        self.required = required
        self.state, self.detail = ModelState.LOADING, "waiting to be loaded"
        self.one_call, self.timings = False, _NO_TIMINGS
        self._keeper, self._settled = keeper, Waiters()
        workers, self._own_stages = parts.workers(definition, settings, load, self.report)
        self.workers = instances_of(workers, settings)
        self.scheduler = parts.scheduler(spec, settings, workers)
        tell = partial(keeper.reported, self)
        self.autoscaler = parts.autoscaler(settings, self.workers, self.scheduler, tell)
        self._clock, self._metrics, self._inputs = parts.clock, parts.metrics, parts.inputs

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Queue `request`; fails and raises as `BatchScheduler.submit` does."""
        return self.scheduler.submit(request)

    def successor(self) -> ModelVersion:
        """Return what takes requests in place of this version, which was found a while ago."""
        return self._keeper.successor(self)

    def become(self, state: ModelState, detail: str = "") -> None:
        """Go to `state`, which the table must allow."""
        self.state = STATES.step(self.state, state, self.title)
        self.detail = detail
        self._keeper.changed(self)
        if state not in _PASSING:
            self._settled.release()

    def start(self) -> Deferred[None]:
        """Load the model; fires when it is ready, fails with ModelLoadError if it cannot be."""
        workers = self.workers
        hears = self.scheduler.deliver, self.scheduler.set_alive, self._workers_changed
        if self._content is None:
            loading = workers.start(*hears)
        else:
            # The version may be gone before its files were looked at.
            loading = self._content.look().addCallback(
                lambda _: (
                    workers.start(*hears) if self.state is ModelState.LOADING else LoadedModel()
                )
            )
        return loading.addCallbacks(self._loaded, self._failed)

    def settled(self) -> Deferred[None]:
        """Fire once the model is neither being loaded nor being unloaded any more.

        May be cancelled.
        """
        return self._settled.wait() if self.state in _PASSING else succeed(None)

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when those that were taken are answered."""
        if self.autoscaler is not None:
            self.autoscaler.end()
        return self.drain_stages().addCallback(lambda _: self.scheduler.drain())

    def unload(self) -> None:
        """Answer what was taken, take no more; then end the worker and let go of the model.

        A model that still loads is unloaded when it has loaded: a thread cannot be interrupted.
        """
        if self.state is ModelState.LOADING:
            self.become(ModelState.UNLOADING, "it still loads")
            self.workers.quit().addCallback(lambda _: self._end(ModelState.UNLOADED, "unloaded"))
        elif self.is_loaded:
            self.become(ModelState.UNLOADING, "it answers its last requests")
            self.drain().addCallback(lambda _: self._end(ModelState.UNLOADED, "unloaded"))
        elif self.state is not ModelState.UNLOADING:
            self._end(ModelState.UNLOADED, "unloaded")

    def cut_short(self) -> None:
        """Unload the version without waiting longer for its last answers: what waits fails."""
        reason = "the model was unloaded before the request was answered"
        self.scheduler.fail_all(Draining(reason, retry_after=0))
        self._end(ModelState.UNLOADED, "unloaded")

    def stop(self) -> None:
        """Fail what waits or runs, and end the workers."""
        reason = "the server was stopped before the request was answered"
        self.scheduler.fail_all(Draining(reason, retry_after=0))
        self._end(ModelState.STOPPED, "the server was stopped")

    def report(self, text: str) -> None:
        """Hear what a worker does while it loads, in words, and later what it compiles."""
        if self.state is ModelState.LOADING:
            if self._began is None:
                self._began = self._seconds()
            self.detail = text
            self._keeper.reported(self, text)
        elif text.startswith(AFTER_LOAD):
            if text.startswith(AFTER_LOAD + COMPILING):
                self._metrics.model(self.spec.name, self.spec.version).recompilations += 1
            self._keeper.reported(self, text)

    def _end(self, state: ModelState, detail: str) -> None:
        if STATES[self.state]:
            self.drop_stages()
            if self.autoscaler is not None:
                self.autoscaler.end()
            if self.decoded is not None:
                self.decoded.close()
            self.become(state, detail)

            def ended(_: None) -> None:
                # Nothing waits any more, or nobody would answer it; and the timer is let go of.
                self.scheduler.fail_all(Draining(f"model {self.title} has ended", retry_after=0))
                self._keeper.ended(self)

            self.workers.quit().addCallback(ended)

    def _loaded(self, loaded: LoadedModel) -> None:
        if self.state is not ModelState.LOADING:
            return
        if self._began is not None:
            self.load_s = self._seconds() - self._began
        self.one_call, self.sample, self.timings = loaded.one_call, loaded.sample, loaded.timings
        around = self.deadline, self._pools, self._clock, self._metrics
        own = self.settings, loaded, self._content, self._inputs
        stages = version_stages(self.spec, *own, *around, computed=partial(_computed, self))
        if self._content is not None:
            kept = self._inputs, self.settings.cache, self._clock, self._metrics.caches
            self.decoded = decoded_inputs(self.spec, *kept)
        # A pipeline keeps no answers: its models may be replaced, and keep their own.
        self.set_version_stages(tuple(self._own_stages or stages))
        if loaded.preprocess is not None:
            self.limits = NO_LIMITS  # the queue gets what the hook makes of the inputs
        if loaded.preprocess is None and not self.spec.has_groups:
            self.scheduler.group_key = None
        numbers = loaded.max_rows, loaded.overflow_rows, loaded.length_timings, loaded.run_sizes
        self.scheduler.loaded(loaded.timings, *numbers)
        self.become(ModelState.READY)
        self._metrics.note(self._seconds())
        if self.autoscaler is not None and not loaded.hands_over:  # then one alone takes batches
            self.autoscaler.start()
        self._workers_changed()  # one worker may have ended while another still loaded

    def _workers_changed(self) -> None:
        state, reason = _LOADED[self.workers.condition], self.workers.reason
        detail = "" if state is ModelState.READY else reason
        if self.is_loaded and state is not self.state:
            self.become(state, detail)
        elif self.is_loaded and detail != self.detail:
            # A worker was started again, and that failed for another reason.
            self.detail = detail
            self._keeper.changed(self)
        # Also while the version is being unloaded: nobody will answer what it has taken.
        if state is ModelState.BROKEN:
            unready = f"model {self.title} is not ready: {state.value}"
            self.scheduler.give_up(f"{unready}: {reason}", unready)

    def _failed(self, failure: Failure) -> Failure:
        if self.state is ModelState.LOADING:
            self.become(ModelState.FAILED, failure.getErrorMessage())
        return failure

    @property
    def is_loaded(self) -> bool:
        """Whether the version was loaded and is to serve as long as it has a worker."""
        return self.state in (ModelState.READY, ModelState.RESTARTING, ModelState.BROKEN)

    @property
    def accepts(self) -> bool:
        """Whether the version takes requests."""
        return self.state in (ModelState.READY, ModelState.RESTARTING)

    @property
    def status_text(self) -> str:
        """State and detail, for messages."""
        state = self.state.value
        return state if self.detail in ("", state) else f"{state}: {self.detail}"

    @property
    def public_text(self) -> str:
        """What clients may read of `status_text`.

        While the version loads, that is what is being done, without the reason behind the colon.
        """
        if self.state in _PRIVATE:
            return self.state.value
        doing, colon, _ = self.detail.partition(":")
        has_reason = self.state is ModelState.LOADING and colon
        return f"{self.state.value}: {doing}" if has_reason else self.status_text

    @property
    def is_missing(self) -> bool:
        """Whether the version should serve and does not."""
        return self.required and self.state is not ModelState.READY and self.state not in GONE


def _computed(version: ModelVersion) -> Deferred[None]:
    """Fire when no batch of `version` runs, or none is waited for any more. Reactor thread."""
    scheduler = version.scheduler
    if scheduler.in_flight_rows and version.state in _COMPUTING:
        return scheduler.idle.wait()
    return succeed(None)


def progress_text(version: ModelVersion) -> str:
    """Return what the log says of the state of `version`, and how long a load took. Any thread."""
    if version.state is ModelState.READY and not version.detail:
        return f"ready, loaded in {version.load_s:.1f} s"
    return version.status_text


def not_ready_error(version: ModelVersion, retry_after: int = 1) -> ModelNotReady:
    """Return the error that says why `version` does not answer. Reactor thread."""
    begin = f"model {version.title} is not ready: "
    return ModelNotReady(begin + version.status_text, retry_after, begin + version.public_text)
