"""One version of a model while it is served.

Its life as a table, and how its scheduler is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.batching.admission import Admission
from batcher.batching.cost import CostModel
from batcher.batching.options import SchedulerOptions
from batcher.batching.policies.bulk import BulkLast
from batcher.batching.policies.policy import Delay, Eager, Policy
from batcher.batching.queue import BatchQueue
from batcher.batching.scheduler import BatchScheduler, CallSoon
from batcher.batching.worker import Condition, Worker
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.spec import Array, ModelSpec
from batcher.core.waiters import Waiters
from batcher.errors import Draining
from batcher.models.protocol import Loaded
from batcher.serving.stages.hooks import HookedRequests
from batcher.workers.instances import Instances
from batcher.workers.pool import CpuPool

Changed = Callable[["ModelVersion", str], None]
"""Told that a model changed its state, or what it is doing while it loads, and what that is in
words.
"""


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


_END = frozenset({ModelState.UNLOADED, ModelState.STOPPED})
STATES: dict[ModelState, frozenset[ModelState]] = {
    ModelState.LOADING: frozenset(
        {ModelState.READY, ModelState.FAILED, ModelState.UNLOADING, ModelState.STOPPED}
    ),
    ModelState.READY: frozenset(
        {ModelState.RESTARTING, ModelState.BROKEN, ModelState.UNLOADING, ModelState.STOPPED}
    ),
    ModelState.RESTARTING: frozenset(
        {ModelState.READY, ModelState.BROKEN, ModelState.UNLOADING, ModelState.STOPPED}
    ),
    ModelState.BROKEN: frozenset(
        {ModelState.READY, ModelState.RESTARTING, ModelState.UNLOADING, ModelState.STOPPED}
    ),
    ModelState.FAILED: _END,
    ModelState.UNLOADING: _END,
    ModelState.UNLOADED: frozenset(),
    ModelState.STOPPED: frozenset(),
}
"""From each state, the states that may follow."""

_PASSING = frozenset({ModelState.LOADING, ModelState.UNLOADING})
_LOADED = {
    Condition.ALIVE: ModelState.READY,
    Condition.RESTARTING: ModelState.RESTARTING,
    Condition.DEAD: ModelState.BROKEN,
}
"""The state of a model that has been loaded, by the condition of its workers."""


class ModelVersion:
    """One version of a model with its worker and its scheduler. Reactor thread.

    Attributes:
        definition: what it is.
        settings: how it is run.
        required: whether the server is not ready without it.
        state: where it is in its life.
        detail: what it is doing or why it failed, in words.
        max_level: the lowest priority that a request may name, which is that of bulk.
        one_call: whether the loaded model takes the interpreter lock but once a batch.
        hooked: sees to its requests if it has `preprocess` or `postprocess`.
        workers: run its batches.
    """

    def __init__(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        pool: CpuPool,
        changed: Changed,
        ended: Callable[[ModelVersion], object],
        required: bool = True,
    ) -> None:
        """Start in LOADING, with nothing wired yet.

        Args:
            definition: what it is.
            settings: how it is run.
            pool: runs its hooks.
            changed: told of every change.
            ended: told when its worker has ended.
            required: whether the server is not ready without it.
        """
        self.definition = definition
        self.spec = definition.spec
        self.settings = settings
        self.required = required
        self.state = ModelState.LOADING
        self.detail = "waiting to be loaded"
        self.max_level = settings.bulk_level
        self.workers: Instances
        self.scheduler: BatchScheduler
        self.one_call = False
        self.hooked: HookedRequests | None = None
        self._pool = pool
        self._changed = changed
        self._ended = ended
        self._settled = Waiters()

    def become(self, state: ModelState, detail: str = "") -> None:
        """Go to `state`, which the table must allow."""
        if state not in STATES[self.state]:
            raise RuntimeError(f"{self.title}: {self.state.value} cannot become {state.value}")
        self.state = state
        self.detail = detail
        self._changed(self, self.told)
        if state not in _PASSING:
            self._settled.release()

    def start(self) -> Deferred[None]:
        """Load the model; fires when it is ready, fails with ModelLoadError if it cannot be."""
        loading = self.workers.start(
            self.scheduler.deliver, self.scheduler.set_alive, self._workers_changed
        )
        return loading.addCallbacks(self._loaded, self._failed)

    def settled(self) -> Deferred[None]:
        """Fire once the model is neither being loaded nor being unloaded any more.

        May be cancelled.
        """
        return self._settled.wait() if self.state in _PASSING else succeed(None)

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when those that were taken are answered."""
        hooked = self.hooked.drain() if self.hooked is not None else succeed(None)
        return hooked.addCallback(lambda _: self.scheduler.drain())

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
        """Unload it without waiting longer for its last answers; what is still here fails."""
        self._fail_all("the model was unloaded before the request was answered")
        self._end(ModelState.UNLOADED, "unloaded")

    def stop(self) -> None:
        """Fail what is still here and end the worker."""
        self._fail_all("the server was stopped before the request was answered")
        self._end(ModelState.STOPPED, "the server was stopped")

    def report(self, text: str) -> None:
        """Take what the worker says of loading."""
        if self.state is ModelState.LOADING:
            self.detail = text
            self._changed(self, text)

    def _fail_all(self, reason: str) -> None:
        self.scheduler.fail_all(Draining(reason, retry_after=0))

    def _end(self, state: ModelState, detail: str) -> None:
        if STATES[self.state]:
            self.hooked = None
            self.become(state, detail)
            self.workers.quit().addCallback(lambda _: self._ended(self))

    def _loaded(self, loaded: Loaded) -> None:
        if self.state is not ModelState.LOADING:
            return
        self.one_call = loaded.one_call
        if loaded.preprocess is not None or loaded.postprocess is not None:
            self.hooked = HookedRequests(
                self._pool, self.scheduler, self.spec, loaded, self.settings.finite_outputs
            )
        if loaded.preprocess is None and not any(tensor.free_axes for tensor in self.spec.inputs):
            self.scheduler.group_key = None
        self.scheduler.loaded(loaded.timings)
        self.become(ModelState.READY)
        self._workers_changed()  # one of them may have ended while another still loaded

    def _workers_changed(self) -> None:
        state, reason = _LOADED[self.workers.condition], self.workers.reason
        detail = "" if state is ModelState.READY else reason
        if self.is_loaded and state is not self.state:
            self.become(state, detail)
        elif (
            self.is_loaded and detail != self.detail
        ):  # it was started again, and that failed for another reason
            self.detail = detail
            self._changed(self, self.told)
        if (
            state is ModelState.BROKEN
        ):  # also of one that is being unloaded: nobody will answer what it has taken
            self.scheduler.give_up(f"model {self.title} is not ready: {state.value}: {reason}")

    def _failed(self, failure: Failure) -> Failure:
        if self.state is ModelState.LOADING:
            self.become(ModelState.FAILED, failure.getErrorMessage())
        return failure

    @property
    def is_loaded(self) -> bool:
        """Whether it was loaded, and is to serve as long as it has a worker."""
        return self.state in (ModelState.READY, ModelState.RESTARTING, ModelState.BROKEN)

    @property
    def accepts(self) -> bool:
        """Whether it takes requests."""
        return self.state in (ModelState.READY, ModelState.RESTARTING)

    @property
    def told(self) -> str:
        """State and detail, for messages."""
        return (
            self.state.value
            if self.detail in ("", self.state.value)
            else f"{self.state.value}: {self.detail}"
        )

    @property
    def missed(self) -> bool:
        """Whether it should serve and does not."""
        return self.required and self.state not in (
            ModelState.READY,
            ModelState.UNLOADING,
            ModelState.UNLOADED,
        )

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.spec.name}/{self.spec.version}"


def build_scheduler(
    settings: ModelSettings,
    spec: ModelSpec,
    workers: Sequence[Worker],
    clock: IReactorTime,
    metrics: ModelMetrics,
    call_soon: CallSoon | None = None,
) -> BatchScheduler:
    """Return the scheduler that `settings` ask for, in front of `workers`."""
    weights = settings.level_weights
    queue = BatchQueue(
        settings.max_queue_rows,
        settings.max_queue_bytes,
        lambda level: weights[level - 1],
        ageing=settings.ageing_ms / 1e3,
        smaller_first=settings.smaller_first_ms / 1e3,
        bulk_level=settings.bulk_level,
    )
    options = SchedulerOptions(
        spec.version,
        settings.pipeline_depth,
        settings.timeout,
        settings.default_priority,
        settings.isolate,
        settings.retry_on_crash,
        settings.remember_failed_s,
    )
    return BatchScheduler(
        queue,
        BulkLast(_policy(settings), settings.bulk_after_ms / 1e3),
        workers,
        clock,
        metrics,
        options=options,
        admission=Admission(CostModel(), settings.max_batch_size, settings.max_queue_rows),
        group_key=shape_key,
        call_soon=call_soon,
    )


def shape_key(inputs: Mapping[str, Array]) -> Hashable:
    """Return what requests must share to share a batch: names, dtypes and row shapes."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def _policy(settings: ModelSettings) -> Policy:
    if settings.policy == "delay":
        return Delay(
            settings.max_batch_size, settings.max_delay_ms / 1e3, settings.preferred_batch_sizes
        )
    return Eager(settings.max_batch_size)
