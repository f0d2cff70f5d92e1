"""One version of a model while it is served: its life as a table, and how its scheduler is put together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import Enum

from twisted.internet.interfaces import IReactorTime

from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ModelSettings
from batcher.counters import ModelMetrics
from batcher.models.protocol import Model
from batcher.scheduler import BatchScheduler, CallSoon
from batcher.scheduling.options import SchedulerOptions
from batcher.scheduling.policy import Delay, Eager, Policy
from batcher.scheduling.queue import BatchQueue
from batcher.spec import Array, ModelSpec
from batcher.workers.protocol import Worker


class ModelState(Enum):
    """Where a version of a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


STATES: dict[ModelState, frozenset[ModelState]] = {
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.FAILED, ModelState.STOPPED}),
    ModelState.READY: frozenset({ModelState.STOPPED}),
    ModelState.FAILED: frozenset({ModelState.STOPPED}),
    ModelState.STOPPED: frozenset(),
}
"""From each state, the states that may follow."""


class ServedModel:
    """One version of a model with its worker and its scheduler. Reactor thread.

    Attributes:
        definition: what it is.
        settings: how it is run.
        state: where it is in its life.
        detail: what it is doing or why it failed, in words.
        max_level: the lowest priority that a request may name.
        one_call: whether the loaded model takes the interpreter lock but once a batch.
        hooked: the loaded model if it has `preprocess` or `postprocess`.
    """

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Start in LOADING, with nothing wired yet."""
        self.definition = definition
        self.spec = definition.spec
        self.settings = settings
        self.state = ModelState.LOADING
        self.detail = "waiting to be loaded"
        self.max_level = len(settings.level_weights)
        self.worker: Worker
        self.scheduler: BatchScheduler
        self.one_call = False
        self.hooked: Model | None = None

    def become(self, state: ModelState, detail: str = "") -> None:
        """Go to `state`, which the table must allow."""
        if state not in STATES[self.state]:
            raise RuntimeError(f"{self.title}: {self.state.value} cannot become {state.value}")
        self.state = state
        self.detail = detail

    def loaded(self, model: Model) -> None:
        """Take the model that the worker has loaded, and serve it."""
        self.one_call = model.one_call
        if model.preprocess is not None or model.postprocess is not None:
            self.hooked = model
        if model.preprocess is None and not any(tensor.free_axes for tensor in self.spec.inputs):
            self.scheduler.group_key = None
        self.become(ModelState.READY)

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.spec.name}/{self.spec.version}"


def build_scheduler(
    settings: ModelSettings,
    spec: ModelSpec,
    worker: Worker,
    clock: IReactorTime,
    metrics: ModelMetrics,
    call_soon: CallSoon | None = None,
) -> BatchScheduler:
    """Return the scheduler that `settings` ask for, in front of `worker`."""
    weights = settings.level_weights
    queue = BatchQueue(settings.max_queue_rows, settings.max_queue_bytes, lambda level: weights[level - 1])
    options = SchedulerOptions(spec.version, settings.pipeline_depth, settings.timeout_ms / 1e3, settings.default_priority)
    return BatchScheduler(
        queue,
        _policy(settings),
        worker,
        clock,
        metrics,
        options=options,
        group_key=shape_key,
        call_soon=call_soon,
    )


def shape_key(inputs: Mapping[str, Array]) -> Hashable:
    """Return what requests must share to share a batch: names, dtypes and row shapes."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def _policy(settings: ModelSettings) -> Policy:
    if settings.policy == "delay":
        return Delay(settings.max_batch_size, settings.max_delay_ms / 1e3, settings.preferred_batch_sizes)
    return Eager(settings.max_batch_size)
