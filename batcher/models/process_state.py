"""What a model may change for the whole process while it loads, and how that is put back.

A model on a thread shares the process with other models and with the server. Libraries set what
belongs to all of them: `transformers` changes PyTorch's default dtype while it builds a model, a
seed makes the weights of the next model, `os.chdir` moves every relative path. So the process is
looked at before a load and after it. What differs is put back, and most of it is told by name.

Not told are the states of random generators, since every load draws some numbers; the filters of
warnings, which most libraries extend, unless warnings were made errors; and the plain names of
modules beside the model (`version_code`). What belongs to the thread alone is not told either.

Nothing is imported for the sake of looking: a library that the load itself has imported had its own
defaults before. In a child process, which has one model alone, nothing is put back.
"""

from __future__ import annotations

import csv
import decimal
import gc
import locale
import logging
import os
import random
import resource
import socket
import ssl
import sys
import tempfile
import time
import tracemalloc
import warnings
from contextlib import suppress
from typing import Any

import numpy as np

from batcher.models.process_setting import Setting, of_module
from batcher.models.torch_state import TORCH_SETTINGS
from batcher.models.version_code import forget_plain_names
from batcher.models.version_code.own_path import without_own

OF_LIBRARIES = ("CUDA_MODULE_LOADING", "KMP_", "TORCHINDUCTOR_", "TRITON_")
"""Beginnings of environment variables that PyTorch and OpenMP set for themselves, when they are
first used. These are left as they are.
"""

OF_OPENCV = ("LD_LIBRARY_PATH", "QT_QPA_")
"""Beginnings of environment variables that `import cv2` sets for windows on a screen. These are put
back, and not told: nobody misses them.
"""

MAX_NAMES = 8
"""Environment variables that are told by name: a line of the log stays readable."""

_OF_DECIMALS = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
"""What a context of decimal numbers holds, besides its traps."""

_LIMITS = {
    name: getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # that is RLIMIT_NOFILE
}
"""The limits that the system keeps for a process, by their names."""


class ProcessState:
    """The process as it was when this object was made."""

    def __init__(self) -> None:
        """Look at the process. The thread that loads."""
        self._values = [setting.read() for setting in _SETTINGS]
        # This one changes a copy of the filters until its exit.
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        self._filters = list(warnings.filters)

    def put_back(self) -> list[str]:
        """Make everything as it was; return the names of what had changed.

        Once. The thread that loads.
        """
        told = []
        if _errors(warnings.filters) - _errors(self._filters):
            told.append("warnings as errors")
        self._warnings.__exit__(None, None, None)
        forget_plain_names()
        for setting, before in zip(_SETTINGS, self._values, strict=True):
            now = setting.read()
            if now == before:
                continue
            # A folder may be gone; and whatever cannot be put back stops nothing else.
            with suppress(Exception):
                setting.write(before)
            if setting.name:
                told.append(f"{setting.name}{_changed_names(before, now)}")
        return told


def _errors(filters: Any) -> set[Any]:
    """Return those of the `filters` of warnings that make errors. Any thread."""
    return {each for each in filters if each[0] == "error"}


def _changed_names(before: Any, now: Any) -> str:
    """Return which names differ between two mappings, in words; nothing for other values."""
    if not isinstance(before, dict):
        return ""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f" ({', '.join(names[:MAX_NAMES])}{more})"


def _numpy_random() -> tuple[Any, ...]:
    """Return the state of NumPy's shared generator, so that it can be compared. Any thread."""
    kind, keys, *rest = np.random.get_state()
    return (kind, np.asarray(keys).tobytes(), *rest)


def _set_numpy_random(state: tuple[Any, ...]) -> None:
    """Set the state of NumPy's shared generator. Any thread."""
    kind, keys, *rest = state
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))


def _decimals() -> tuple[Any, ...]:
    """Return how `decimal` computes on threads that have not used it yet. Any thread."""
    context = decimal.DefaultContext
    return (*(getattr(context, name) for name in _OF_DECIMALS), dict(context.traps))


def _set_decimals(value: tuple[Any, ...]) -> None:
    """Set what `_decimals` returns. Any thread."""
    *values, traps = value
    for name, each in zip((*_OF_DECIMALS, "traps"), (*values, traps), strict=True):
        setattr(decimal.DefaultContext, name, each)


def _limits() -> dict[str, int]:
    """Return the limits that the system keeps for this process, by their names. Any thread."""
    return {name: resource.getrlimit(which)[0] for name, which in _LIMITS.items()}


def _set_limits(before: dict[str, int]) -> None:
    """Set what `_limits` returns, as far as the bounds of these limits allow it. Any thread."""
    for name, soft in before.items():
        _, hard = resource.getrlimit(_LIMITS[name])
        with suppress(ValueError, OSError):
            resource.setrlimit(_LIMITS[name], (soft, hard))


def _temporary_folder() -> str:
    """Return the folder of temporary files; nothing where there is none. Any thread."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return ""


def _stack_size() -> int:
    """Return the bytes of the stacks of new threads, 0 for the system's own number. Any thread."""
    size = _set_stack_size(0)  # Python tells the size only when it is set
    if size:
        _set_stack_size(size)
    return size


def _set_stack_size(size: int) -> int:
    """Set what `_stack_size` returns, and return what it was. Any thread."""
    return int(sys.modules["threading"].stack_size(size))


def _set_tracing(is_on: bool) -> None:
    """Have Python note where memory is allocated, or not. Any thread."""
    (tracemalloc.start if is_on else tracemalloc.stop)()


def _disabled_loggers() -> frozenset[str]:
    """Return the names of the loggers that are off. Any thread."""
    loggers = logging.root.manager.loggerDict.copy()
    return frozenset(name for name, each in loggers.items() if getattr(each, "disabled", False))


def _set_disabled_loggers(before: frozenset[str]) -> None:
    """Set what `_disabled_loggers` returns. Any thread."""
    for name in _disabled_loggers() ^ before:
        logging.getLogger(name).disabled = name in before


def _root_logger() -> tuple[int, list[Any], list[Any], int]:
    """Return level, handlers and filters of the root logger, and the level up to which none logs.

    Any thread.
    """
    root = logging.getLogger()
    return root.level, list(root.handlers), list(root.filters), logging.root.manager.disable


def _set_root_logger(value: tuple[int, list[Any], list[Any], int]) -> None:
    """Set what `_root_logger` returns. Any thread."""
    root = logging.getLogger()
    level, root.handlers[:], root.filters[:], disable = value
    root.setLevel(level)
    logging.disable(disable)


def _switch_interval() -> int:
    """Return the switch interval in microseconds, as Python keeps it. Any thread."""
    return round(sys.getswitchinterval() * 1e6)


def _set_switch_interval(microseconds: int) -> None:
    """Set the switch interval; Python cuts fractions of a microsecond off. Any thread."""
    sys.setswitchinterval((microseconds + 0.5) / 1e6)


def _set_path(before: list[str]) -> None:
    """Make `sys.path` as it was, but for folders of libraries, which stay. Any thread."""
    sys.path[:] = without_own(sys.path, before)


def _folder() -> str:
    """Return the working directory; nothing where it is gone. Any thread."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _environment() -> dict[str, str]:
    """Return the environment, but for what libraries set for themselves. Any thread."""
    apart = (*OF_LIBRARIES, *OF_OPENCV)
    return {name: each for name, each in os.environ.items() if not name.startswith(apart)}


def _opencv_environment() -> dict[str, str]:
    """Return what OpenCV sets in the environment. Any thread."""
    return {name: each for name, each in os.environ.items() if name.startswith(OF_OPENCV)}


def _set_environment(before: dict[str, str], now: dict[str, str]) -> None:
    """Make variables that are `now` in the environment as they were. Any thread."""
    for name in now.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    time.tzset()  # the variable TZ, as the C library keeps it


def _umask() -> int:
    """Return which rights new files do not have. Any thread."""
    # Python's own way to read the mask sets another one meanwhile, for all threads.
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))


def _loop_policy() -> Any:
    """Return the policy of event loops of `asyncio`, None for Python's own. Any thread."""
    policy = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    # Python makes its own policy when the first loop is asked for.
    return None if type(policy).__module__.startswith("asyncio.") else policy


def _set_loop_policy(policy: Any) -> None:
    """Set what `_loop_policy` returns. Any thread."""
    sys.modules["asyncio"].set_event_loop_policy(policy)


def _output(name: str) -> Setting:
    """Return the setting `sys.stdout` or `sys.stderr`, without what a moving line puts before it.

    The moving line of a start (`rich`) begins and ends while models load, and belongs to no model.
    """
    plain = of_module("sys", name, None)

    def read() -> Any:
        return getattr(plain.read(), "rich_proxied_file", plain.read())

    return Setting(plain.name, read, plain.write)


def _set_collector(is_on: bool) -> None:
    """Turn the collector of cycles on or off. Any thread."""
    (gc.enable if is_on else gc.disable)()


_SETTINGS = (
    *TORCH_SETTINGS,
    Setting("NumPy's floating-point errors", np.geterr, lambda value: np.seterr(**value)),
    Setting(
        "NumPy's print options",
        np.get_printoptions,
        lambda value: np.set_printoptions(**value),
    ),
    of_module("PIL.Image", "MAX_IMAGE_PIXELS", 1024 * 1024 * 1024 // 4 // 3),
    of_module("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", False),
    of_module("PIL.PngImagePlugin", "MAX_TEXT_CHUNK", 1 << 20),
    of_module("PIL.PngImagePlugin", "MAX_TEXT_MEMORY", 1 << 26),
    *(
        of_module("socket", name, None)
        for name in ("socket", "create_connection", "getaddrinfo")  # a proxy puts its own there
    ),
    Setting("the time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Setting("the root logger", _root_logger, _set_root_logger),
    Setting("loggers that are off", _disabled_loggers, _set_disabled_loggers),
    of_module("logging", "raiseExceptions", True),
    Setting("the class of loggers", logging.getLoggerClass, logging.setLoggerClass),
    Setting(
        "the factory of log records",
        logging.getLogRecordFactory,
        logging.setLogRecordFactory,
    ),
    Setting("the switch interval", _switch_interval, _set_switch_interval),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("the path of imports (sys.path)", lambda: list(sys.path), _set_path),
    Setting("the collector of cycles", gc.isenabled, _set_collector),
    Setting(
        "the thresholds of the collector",
        gc.get_threshold,
        lambda value: gc.set_threshold(*value),
    ),
    Setting("the debugging of the collector", gc.get_debug, gc.set_debug),
    Setting("the tracing of memory", tracemalloc.is_tracing, _set_tracing),
    Setting("the digits of whole numbers", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    Setting("the default context of decimals", _decimals, _set_decimals),
    Setting("how libraries are loaded (dlopen)", sys.getdlopenflags, sys.setdlopenflags),
    Setting("the size of the stacks of threads", _stack_size, _set_stack_size),
    Setting("the longest field of CSV", csv.field_size_limit, csv.field_size_limit),
    Setting("limits of the process", _limits, _set_limits),
    Setting(
        "the folder of temporary files",
        _temporary_folder,
        lambda folder: setattr(tempfile, "tempdir", folder or None),
    ),
    *(
        of_module("sys", name, None)
        for name in ("stdin", "excepthook", "unraisablehook", "tracebacklimit")
    ),
    *(_output(name) for name in ("stdout", "stderr")),
    Setting("sys.argv", lambda: list(sys.argv), lambda before: setattr(sys, "argv", before)),
    of_module("builtins", "print", None),
    *(
        of_module("threading", name, None)  # imported with the server
        for name in ("excepthook", "_trace_hook", "_profile_hook")
    ),
    Setting("the policy of event loops", _loop_policy, _set_loop_policy),
    of_module("ssl", "_create_default_https_context", ssl.create_default_context),
    Setting("the rights of new files (umask)", _umask, os.umask),
    Setting("the working directory", _folder, os.chdir),
    Setting(
        "environment variables",
        _environment,
        lambda before: _set_environment(before, _environment()),
    ),
    Setting(
        "",
        _opencv_environment,
        lambda before: _set_environment(before, _opencv_environment()),
    ),
    Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    Setting("", random.getstate, random.setstate),
    Setting("", _numpy_random, _set_numpy_random),
)
