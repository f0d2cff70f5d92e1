"""One look for cycles for many models that end together.

A full collection keeps the interpreter lock for a tenth of a second in a large process. When one
reload unloads a hundred models, a hundred threads end, and each would collect.

    thread 1   collects -------------->
    thread 2       waits, for all that have ended since >collects ------------>
    others          leave it to thread 2
"""

from __future__ import annotations

import gc
from threading import Lock

_COLLECTING = Lock()
_LOCK = Lock()
_is_awaited = False  # whether a thread waits to collect once the present collection is over


def collect_once() -> None:
    """Collect cycles, or leave that to a thread that is about to. Any thread."""
    global _is_awaited
    with _LOCK:
        if _is_awaited:
            return
        _is_awaited = True
    with _COLLECTING:
        _is_awaited = False
        gc.collect()
