"""A thread that gives back the memory of mappings which nobody uses any more."""

from __future__ import annotations

import os
from functools import partial
from mmap import mmap
from queue import SimpleQueue

from batcher.core.mappings import close, let_go_by
from batcher.workers.daemon_threads import start_daemon


def unmap_on_thread() -> None:
    """Have a thread of its own close mappings. Main thread, before anything runs."""
    # Python's collector may hand over a mapping while the same thread hands over another: this
    # queue is the one that admits that.
    unused: SimpleQueue[mmap] = SimpleQueue()
    let_go_by(unused.put)
    start_daemon(partial(_close_all, unused), "batcher-unmap")
    # A copy of this process, which a model has forked, is without the thread.
    os.register_at_fork(after_in_child=partial(let_go_by, close))


def _close_all(unused: SimpleQueue[mmap]) -> None:
    """Close mappings as they come. The thread."""
    while True:
        close(unused.get())
