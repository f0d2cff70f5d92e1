"""The two pools for work that is too slow for the loop."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread
from batcher.config.settings import ServerSettings
from batcher.core.cores import cores
from batcher.workers.codec_process.pool import CodecPool
from batcher.workers.pool import CpuPool


class Pools(NamedTuple):
    """Where the work of single requests runs when it does not run on the loop.

    Attributes:
        cpu: threads, for pictures, forms, hooks and inflating.
        codecs: a process, for text.
    """

    cpu: CpuPool
    codecs: CodecPool

    def stop(self) -> None:
        """Give up what waits; both take nothing more. Reactor thread."""
        self.cpu.stop()
        self.codecs.stop()


def make_pools(
    settings: ServerSettings, call_from_thread: CallFromThread, clock: IReactorTime
) -> Pools:
    """Return pools within the bounds of `settings`; nothing starts. Reactor thread."""
    threads, tasks = settings.cpu_pool_threads or cores(), settings.cpu_pool_tasks
    return Pools(
        CpuPool(threads, tasks, settings.cpu_pool_bytes, call_from_thread, clock),
        CodecPool(tasks, settings.max_decoding_bytes, call_from_thread, clock),
    )
