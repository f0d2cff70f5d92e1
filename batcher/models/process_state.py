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

import gc
import locale
import logging
import os
import random
import socket
import ssl
import sys
import time
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

MAX_NAMES = 8
"""Environment variables that are told by name: a line of the log stays readable."""


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
    return {name: each for name, each in os.environ.items() if not name.startswith(OF_LIBRARIES)}


def _set_environment(before: dict[str, str]) -> None:
    """Make the environment as it was. Any thread."""
    for name in _environment().keys() - before.keys():
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
    Setting("the time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Setting("the root logger", _root_logger, _set_root_logger),
    Setting("the switch interval", _switch_interval, _set_switch_interval),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("the path of imports (sys.path)", lambda: list(sys.path), _set_path),
    Setting("the collector of cycles", gc.isenabled, _set_collector),
    *(of_module("sys", name, None) for name in ("stdout", "stderr", "excepthook")),
    of_module("threading", "excepthook", None),  # imported with the server
    of_module("ssl", "_create_default_https_context", ssl.create_default_context),
    Setting("the rights of new files (umask)", _umask, os.umask),
    Setting("the working directory", _folder, os.chdir),
    Setting("environment variables", _environment, _set_environment),
    Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    Setting("", random.getstate, random.setstate),
    Setting("", _numpy_random, _set_numpy_random),
)
