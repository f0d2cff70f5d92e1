"""How the parts of a model version are put together: its workers, and its queue with its policy.

Everything that comes from the server's surroundings (the clock, the ways between threads, metrics)
stands in one `Assembly`, so a model version is told of its own settings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime

from batcher.batching.admission import Admission
from batcher.batching.autoscale import Autoscale
from batcher.batching.cost import CostModel
from batcher.batching.options import SchedulerOptions
from batcher.batching.policies.bulk import BulkLast
from batcher.batching.policies.deferred import Deferred
from batcher.batching.policies.delay import Delay
from batcher.batching.policies.eager import Eager
from batcher.batching.policies.policy import Policy
from batcher.batching.queue import BatchQueue
from batcher.batching.ragged_cost import RaggedCostModel
from batcher.batching.ragged_cuts import RaggedCuts
from batcher.batching.scheduler import BatchScheduler, CallSoon, GroupKey
from batcher.batching.worker import CallFromThread, Worker
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.padding import Padding
from batcher.core.spec import Array, ModelSpec
from batcher.serving.caching.inputs import InputStores
from batcher.serving.metrics import ServerMetrics
from batcher.serving.stages.stage import Stage
from batcher.workers.instances import Instances
from batcher.workers.load_turns import LoadTurns
from batcher.workers.making import make_workers
from batcher.workers.pools import Pools
from batcher.workers.scaling.autoscaler import Autoscaler
from batcher.workers.scaling.passing_instances import PassingInstances
from batcher.workers.thread import ModelLoader

MakePipeline = Callable[
    [ModelDefinition, ModelSettings, Callable[[str], None]], tuple[Worker, Sequence[Stage]]
]
"""Makes the worker of a pipeline, which reports of loading, and the stages that answer for it."""


class Assembly:
    """Makes the parts of model versions. Reactor thread.

    Attributes:
        clock: the only time there is.
        pools: where heavy work of single requests runs; all versions share them.
        metrics: where requests and batches are counted.
        turns: say when a model may load.
        inputs: what is kept of inputs; versions that make the same of them share it.
        make_pipeline: makes what a pipeline has in the place of workers, and its stages.
        call_from_thread: the way back from threads.
    """

    make_pipeline: MakePipeline

    def __init__(
        self,
        clock: IReactorTime,
        call_from_thread: CallFromThread,
        call_soon: CallSoon | None,
        pools: Pools,
        metrics: ServerMetrics,
        turns: LoadTurns,
    ) -> None:
        """Store the surroundings; nothing starts.

        Args:
            clock: the reactor, or a `Clock` in tests.
            call_from_thread: the way back from threads.
            call_soon: calls a function in the next turn of the loop; None for a timer of no delay.
            pools: run what is too slow for the loop.
            metrics: where to count.
            turns: say when a model may load.
        """
        self.clock = clock
        self.pools = pools
        self.metrics = metrics
        self.turns, self.inputs = turns, InputStores(clock)
        self.call_from_thread = call_from_thread
        self._call_soon = call_soon

    def workers(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        load: ModelLoader | None,
        report: Callable[[str], None],
    ) -> tuple[list[Worker], Sequence[Stage]]:
        """Return the workers of a version, as `make_workers` says; `report` hears of loading.

        Of a pipeline these are one, and with it come the stages that answer all requests.
        """
        if definition.plan is not None:
            worker, stages = self.make_pipeline(definition, settings, report)
            return [worker], stages
        exceptions = self.metrics.model(definition.spec.name, definition.spec.version).exceptions

        def raised(stage: str) -> None:
            exceptions[stage] += 1

        cross, clock = self.call_from_thread, self.clock
        options = (load, report, cross, clock, self.turns, raised)
        return make_workers(definition, settings, *options), ()

    def scheduler(
        self, spec: ModelSpec, settings: ModelSettings, workers: Sequence[Worker]
    ) -> BatchScheduler:
        """Return the scheduler of a version in front of `workers`."""
        metrics = self.metrics.model(spec.name, spec.version)
        return build_scheduler(settings, spec, workers, self.clock, metrics, self._call_soon)

    def autoscaler(
        self,
        settings: ModelSettings,
        instances: Instances,
        scheduler: BatchScheduler,
        tell: Callable[[str], None],
    ) -> Autoscaler | None:
        """Return what has `instances` come and go, if `settings` ask for that; `tell` logs it."""
        scale = settings.autoscale
        if scale is None or not isinstance(instances, PassingInstances):
            return None
        policy = Autoscale(scale.min, scale.max, scale.cool_down_s)
        return Autoscaler(instances, policy, scheduler.backlog.demand, self.clock, tell)


def build_scheduler(
    settings: ModelSettings,
    spec: ModelSpec,
    workers: Sequence[Worker],
    clock: IReactorTime,
    metrics: ModelMetrics,
    call_soon: CallSoon | None = None,
    *,
    policy: Policy | None = None,
    admission: Admission | None = None,
) -> BatchScheduler:
    """Return the scheduler that `settings` ask for; `policy` and `admission` replace theirs."""
    cost, cuts, group_key = _batch_making(settings, spec)
    admission = admission or _admission(settings, cost)
    return BatchScheduler(
        _queue(settings, cuts),
        BulkLast(policy or _policy(settings, admission), settings.bulk_after_ms / 1e3),
        workers,
        clock,
        metrics,
        options=_options(settings, spec.version),
        admission=admission,
        group_key=group_key,
        call_soon=call_soon,
    )


def _batch_making(
    settings: ModelSettings, spec: ModelSpec
) -> tuple[CostModel, RaggedCuts | None, GroupKey]:
    """Return how long batches take, how padded ones are cut, and who may share a batch."""
    if not spec.is_padded:
        return CostModel(), None, shape_key
    padding = Padding(spec)
    cost = RaggedCostModel()
    return cost, RaggedCuts(cost.plane, settings.max_batch_elements), padding.group_of


def shape_key(inputs: Mapping[str, Array]) -> Hashable:
    """Return what requests must share to share a batch: names, dtypes and row shapes."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def _queue(settings: ModelSettings, cuts: RaggedCuts | None) -> BatchQueue:
    weights = settings.level_weights
    return BatchQueue(
        settings.max_queue_rows,
        settings.max_queue_bytes,
        lambda level: weights[level - 1],
        ageing=settings.ageing_ms / 1e3,
        smaller_first=settings.smaller_first_ms / 1e3,
        bulk_level=settings.bulk_level,
        cuts=cuts,
    )


def _admission(settings: ModelSettings, cost: CostModel) -> Admission:
    return Admission(cost, settings.max_batch_size, settings.max_queue_rows)


def _options(settings: ModelSettings, version: str) -> SchedulerOptions:
    return SchedulerOptions(
        version=version,
        pipeline_depth=settings.pipeline_depth,
        timeout=settings.timeout,
        default_level=settings.default_priority,
        isolate=settings.isolate,
        retry_on_crash=settings.retry_on_crash,
        max_wait=settings.max_delay_ms / 1e3 if settings.is_eager else 0.0,
        remember_failed_s=settings.remember_failed_s,
    )


def _policy(settings: ModelSettings, admission: Admission) -> Policy:
    size = settings.max_batch_size
    if settings.policy == "delay":
        return Delay(size, settings.max_delay_ms / 1e3, settings.preferred_batch_sizes)
    if settings.policy == "deferred":
        return Deferred(size, settings.slo_ms / 1e3, admission.batch_seconds)
    return Eager(size, admission.batch_seconds)
