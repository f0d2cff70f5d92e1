"""Which kind of worker a model's settings ask for."""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread, Worker
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.models.loading import load_model
from batcher.models.protocol import Progress
from batcher.workers.process.worker import ProcessWorker
from batcher.workers.thread import InferenceThread, Load


def make_workers(
    definition: ModelDefinition,
    settings: ModelSettings,
    load: Load | None,
    progress: Progress,
    call_from_thread: CallFromThread,
    clock: IReactorTime,
) -> list[Worker]:
    """Return the workers of a model, one an instance; nothing starts.

    Args:
        definition: what the model is.
        settings: how it is run.
        load: loads it, on a thread of this process whatever `settings` say; without, what
            `definition` says is loaded.
        progress: told, on the reactor thread, what is being done.
        call_from_thread: the way back from threads.
        clock: measures how long loads and batches take.
    """
    name = f"batcher-{definition.spec.name}/{definition.spec.version}"
    title = f"model {definition.spec.name!r} version {definition.spec.version}"
    workers: list[Worker] = []
    for index in range(settings.instances):
        own = settings.for_instance(index)
        if own.worker == "process" and load is None:
            workers.append(ProcessWorker(name, definition, own, progress, call_from_thread, clock))
        else:
            loads = load or partial(load_model, definition, own)
            limits = own.watchdog_s, title, own.load_timeout_s
            workers.append(InferenceThread(name, loads, progress, call_from_thread, clock, *limits))
    return workers
