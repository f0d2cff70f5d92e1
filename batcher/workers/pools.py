"""The pools for work that is too slow for the loop."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread
from batcher.config.settings import ServerSettings
from batcher.core.cores import cores
from batcher.workers.codec_process.pool import CodecPool
from batcher.workers.pool import CpuPool

MAX_DISK_READS = 4096
"""Reads of the disk that may wait: loads of more models than one server holds."""


class Pools(NamedTuple):
    """Where work runs that does not run on the loop.

    Attributes:
        cpu: threads, for pictures, forms, hooks and inflating.
        codecs: a process, for text.
        disk: one thread, for folders of models and the settings.
        stores: one thread, for stores of models, which are slow or away.
        files: one thread, for models that are read from end to end.
        inputs: threads that fetch files which clients name in place of inputs.
        gpus: one thread, for the driver of GPUs, which may hang.
    """

    cpu: CpuPool
    codecs: CodecPool
    disk: CpuPool
    stores: CpuPool
    files: CpuPool
    inputs: CpuPool
    gpus: CpuPool

    @property
    def holders(self) -> tuple[CpuPool, CpuPool]:
        """What holds on to bytes of clients."""
        return self.cpu, self.codecs.threads

    def stop(self) -> None:
        """Give up what waits; all take nothing more. Reactor thread."""
        for pool in self:
            pool.stop()


def make_pools(
    settings: ServerSettings, call_from_thread: CallFromThread, clock: IReactorTime
) -> Pools:
    """Return pools within the bounds of `settings`; nothing starts. Reactor thread."""
    threads, tasks = settings.cpu_pool_threads or cores(), settings.cpu_pool_tasks
    return Pools(
        CpuPool(threads, tasks, settings.cpu_pool_bytes, call_from_thread, clock),
        CodecPool(tasks, settings.max_decoding_bytes, call_from_thread, clock),
        # What waits for the disk holds on to no bytes.
        CpuPool(1, MAX_DISK_READS, 1, call_from_thread, clock, "disk"),
        CpuPool(1, MAX_DISK_READS, 1, call_from_thread, clock, "store"),
        CpuPool(1, MAX_DISK_READS, 1, call_from_thread, clock, "files"),
        # What waits for a thread holds no bytes yet.
        CpuPool(settings.input_fetches, tasks, 1, call_from_thread, clock, "input"),
        CpuPool(1, 1, 1, call_from_thread, clock, "GPU"),
    )
