"""Which kind of worker the settings of a model ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread, Worker
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.models.loading import IN_OWN_PROCESS, load_model
from batcher.models.protocol import Progress
from batcher.workers.instances import Instances
from batcher.workers.load_turns import LoadTurns
from batcher.workers.options import LoopSide, WorkerOptions
from batcher.workers.own_processes import OwnProcesses
from batcher.workers.process.child_thread import ChildThread
from batcher.workers.process.messages import Prepare
from batcher.workers.process.worker import ProcessWorker
from batcher.workers.ray.actor_child import ActorChild
from batcher.workers.ray.cluster import RayCluster
from batcher.workers.scaling.passing_instances import PassingInstances
from batcher.workers.scaling.passing_worker import PassingWorker
from batcher.workers.thread import InferenceThread, ModelLoader


def make_workers(
    definition: ModelDefinition,
    settings: ModelSettings,
    load: ModelLoader | None,
    progress: Progress,
    call_from_thread: CallFromThread,
    clock: IReactorTime,
    turns: LoadTurns,
    raised: Callable[[str], None] = lambda stage: None,
) -> list[Worker]:
    """Return the workers of a model, one for each instance; nothing starts.

    With `autoscale` they are so many as there may be at most, and come and go.

    `load` replaces the loading of what `definition` describes, and always runs on a thread of this
    process. Loads and batches are timed by `clock`, and `turns` say when a load begins; while a
    model loads, `progress` hears of it, and `raised` of the stage in which its own code raised.
    Reactor thread.
    """
    loop = LoopSide(progress, call_from_thread, clock, turns, raised)
    each = map(settings.for_instance, range(settings.most_instances))
    if settings.autoscale is None:
        return [_worker(definition, instance, load, loop) for instance in each]
    makers = [partial(_passing, definition, instance, load, loop) for instance in each]
    return [PassingWorker(make, progress) for make in makers]


def instances_of(workers: list[Worker], settings: ModelSettings) -> Instances:
    """Return `workers`, which `make_workers` made for `settings`, as one. Reactor thread."""
    passing = [worker for worker in workers if isinstance(worker, PassingWorker)]
    if settings.autoscale is None or not passing:
        return Instances(workers)
    return PassingInstances(passing, settings.autoscale.min)


def _passing(
    definition: ModelDefinition,
    settings: ModelSettings,
    load: ModelLoader | None,
    loop: LoopSide,
    progress: Progress,
) -> Worker:
    """Return the worker of an instance that comes; `progress` hears of it. Reactor thread."""
    return _worker(definition, settings, load, loop._replace(progress=progress))


def _worker(
    definition: ModelDefinition, settings: ModelSettings, load: ModelLoader | None, loop: LoopSide
) -> Worker:
    """Return one worker: a thread, a child process, or an actor of Ray. Reactor thread."""
    spec = definition.spec
    options = WorkerOptions(
        f"batcher-{spec.name}/{spec.version}",
        f"model {spec.name!r} version {spec.version}",
        settings.watchdog_s,
        settings.load_timeout_s,
    )
    if settings.worker == "ray" and load is None:
        # The memory of a load is that of its node, and nobody here need wait for a turn.
        alone = loop._replace(turns=LoadTurns(1))
        cluster = RayCluster(settings.on_ray)
        prepare, call = Prepare(definition, settings), loop.call_from_thread
        # A spare would keep a core or a GPU from whoever else is on the cluster.
        options = options._replace(keeps_spare=False)
        return ProcessWorker(alone, options, partial(ActorChild, options, cluster, prepare, call))
    is_apart = settings.worker == "process" or definition.format in IN_OWN_PROCESS
    if is_apart and load is None:
        make_child = partial(ChildThread, options.name, definition, settings, loop.call_from_thread)
        return ProcessWorker(loop, options, make_child)
    load = load or partial(load_model, definition, settings)
    return InferenceThread(load, loop, options, OwnProcesses(definition))
