"""How many bytes something makes Python hold."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def held_after(fill: Callable[[], object]) -> int:
    """Return how many bytes more are held after `fill` was called than before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = fill()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        del kept
        return held
    finally:
        tracemalloc.stop()
