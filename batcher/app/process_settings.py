"""What is set for the whole process: switch interval, garbage collector, open files.

Only this module and `log_lines.py` set such things, and only commands call them. A program that
embeds a `ModelServer` or a `BatcherService` decides about its own process; docs/embedding.md says
what to set there.

The switch interval is how long a thread may keep the interpreter lock while another thread wants
the lock. Event loop and inference threads fight for that lock. A model of many operators takes the
lock once for each of them, and each take may wait a whole interval; a model that is one native call
takes the lock once a batch (`benchmarks/gil.py`). So one model of many operators is enough to make
the interval short, and only when every model is one call is Python's own interval kept.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import warnings
from contextlib import suppress

from batcher.config.settings import ServerSettings
from batcher.models.first_imports import after_first_imports
from batcher.serving.model_version import ModelState
from batcher.serving.server import ModelServer
from batcher.workers.unmapping import unmap_on_thread

OPERATORS_INTERVAL_MS = 0.2
"""Switch interval while a model of many operators is served, in milliseconds."""

CALLS_INTERVAL_MS = 5.0
"""Switch interval while every model is one native call, in milliseconds: Python's own."""

YOUNG_OBJECTS = 5000
"""Objects between two looks of the collector for cycles. With Python's 700 a request costs half a
microsecond more; more than 5000 gain nothing.
"""

_NO_MODEL = (ModelState.FAILED, ModelState.UNLOADED, ModelState.STOPPED)
"""States in which a version runs nothing."""

_MIDDLE_COLLECTIONS = 1
"""Looks at young objects alone before the middle-aged ones are looked at too, at the look after.

So the loop stands still for at most 15,000 objects, some 3 ms. After 20 looks it stood still for 15
to 50 ms while 4,608 clients connected, and requests with a deadline were late.
"""

_OLD_COLLECTIONS = 100
"""Looks at the middle-aged objects before all are looked at."""


_M_ARENA_MAX = -8
"""The parameter of glibc's `mallopt` that bounds how many heaps the threads have."""


def set_process(settings: ServerSettings) -> None:
    """Set what does not depend on the models that are loaded. Main thread, before anything runs."""
    use_one_heap()
    unmap_on_thread()
    # The CPU pool has a thread for each core already, and models share the cores with it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The codec counts the pixels of a picture itself, and refuses with a clear error.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    # While models load, some of them may be of many operators.
    _set_interval_ms(settings.switch_interval_ms or OPERATORS_INTERVAL_MS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_switch_interval(settings: ServerSettings, server: ModelServer) -> None:
    """Set the interval for the models of `server`, unless `settings` name an interval.

    To be called whenever a model has come, gone or changed its state.
    """
    # A model that loads is of many operators until it is known to be none.
    one_calls = all(version.one_call for version in server if version.state not in _NO_MODEL)
    default = CALLS_INTERVAL_MS if one_calls else OPERATORS_INTERVAL_MS
    _set_interval_ms(settings.switch_interval_ms or default)


def use_one_heap() -> None:
    """Have all threads allocate from one heap, unless the environment sets their number.

    Large messages of gRPC are put together by its own threads. With a heap for each thread, up to
    200 MiB of freed pages lay between pages in use after a dozen messages of 64 MiB, which
    `heap_trim.py` cannot give back; with one heap, 23 MiB. Only glibc has heaps of threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, 1)


def _set_interval_ms(interval_ms: float) -> None:
    sys.setswitchinterval(interval_ms / 1e3)


def set_collector() -> None:
    """Have the garbage collector look less often, once every model has loaded."""
    gc.collect()
    gc.set_threshold(YOUNG_OBJECTS, _MIDDLE_COLLECTIONS, _OLD_COLLECTIONS)


def leave_libraries() -> None:
    """Have the collector look no more at the server and at libraries. Before a model is made.

    The thread of each model that ends looks for cycles, and so keeps the interpreter lock. The
    230,000 objects of the server and of PyTorch take 160 ms, in which nobody is answered; those of
    a model take some milliseconds. So libraries are left alone for good, and models never are.

    Refused: to leave alone what is there once all models have loaded. When one of these models
    goes, the collector has to look at all objects again.
    """
    _leave()
    after_first_imports(_leave)


def _leave() -> None:
    """Have the collector look no more at what is there, once it has freed what nobody uses."""
    gc.collect()
    gc.freeze()


def leave_objects() -> None:
    """Have the collector look at no object that is there: the process ends, and they with it.

    The thread of each model that ends looks for cycles, at all objects if they are not frozen. For
    300 models that took over a minute, in which the loop had no turn.
    """
    gc.freeze()
