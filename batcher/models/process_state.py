"""What a model may change for the whole process while it loads, and how that is put back.

A model on a thread shares the process with other models and with the server. Libraries set what
belongs to all of them: `transformers` changes PyTorch's default dtype while it builds a model, a
seed makes the weights of the next model, `os.chdir` moves every relative path. So the process is
looked at before a load and after it. What differs is put back, and most of it is told by name.

Not told are the states of random generators, since every load draws some numbers; the filters of
warnings, which most libraries extend, unless warnings were made errors; and the plain names of
modules beside the model (`version_code`).

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
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from batcher.models.version_code import forget_plain_names

OF_LIBRARIES = ("CUDA_MODULE_LOADING", "KMP_", "TORCHINDUCTOR_", "TRITON_")
"""Beginnings of environment variables that PyTorch and OpenMP set for themselves, when they are
first used. These are left as they are.
"""

MAX_NAMES = 8
"""Environment variables that are told by name: a line of the log stays readable."""


class _Setting(NamedTuple):
    """Something that belongs to the process, with the functions that read and write it.

    Attributes:
        name: what the log calls the setting; empty for a setting whose change is not told.
        read: returns the value now. Any thread.
        write: makes a value from `read` the value again. Any thread.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


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


def _of_module(module: str, attribute: str, default: Any) -> _Setting:
    """Return the setting that an attribute of a module is; `default` without the module."""

    def read() -> Any:
        return getattr(sys.modules.get(module), attribute, default)

    def write(value: Any) -> None:
        setattr(sys.modules[module], attribute, value)

    return _Setting(f"{module}.{attribute}", read, write)


def _torch() -> Any:
    """Return the module `torch` if it has been imported, else None. Any thread."""
    return sys.modules.get("torch")


def _default_dtype() -> str:
    """Return the name of PyTorch's default dtype. Any thread."""
    torch = _torch()
    return str(torch.get_default_dtype()).partition(".")[2] if torch else "float32"


def _set_default_dtype(name: str) -> None:
    """Set PyTorch's default dtype by its name. Any thread."""
    _torch().set_default_dtype(getattr(_torch(), name))


def _deterministic() -> tuple[bool, bool]:
    """Return whether PyTorch avoids algorithms that are not deterministic, or warns of them.

    Any thread.
    """
    torch = _torch()
    if not torch:
        return False, False
    is_on = torch.are_deterministic_algorithms_enabled()
    return is_on, torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(value: tuple[bool, bool]) -> None:
    """Set what `_deterministic` returns. Any thread."""
    _torch().use_deterministic_algorithms(value[0], warn_only=value[1])


def _torch_random() -> bytes:
    """Return the state of PyTorch's generator; nothing if PyTorch is not imported. Any thread."""
    torch = _torch()
    return torch.get_rng_state().numpy().tobytes() if torch else b""


def _set_torch_random(state: bytes) -> None:
    """Set the state of PyTorch's generator; of one that had none before, to chance. Any thread."""
    torch = _torch()
    if state:
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    else:
        torch.seed()


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


def _set_collector(is_on: bool) -> None:
    """Turn the collector of cycles on or off. Any thread."""
    (gc.enable if is_on else gc.disable)()


_SETTINGS = (
    _Setting("PyTorch's default dtype", _default_dtype, _set_default_dtype),
    _Setting("PyTorch's deterministic algorithms", _deterministic, _set_deterministic),
    _Setting("NumPy's floating-point errors", np.geterr, lambda value: np.seterr(**value)),
    _of_module("PIL.Image", "MAX_IMAGE_PIXELS", 1024 * 1024 * 1024 // 4 // 3),
    _of_module("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", False),
    _Setting("the time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Setting("the root logger", _root_logger, _set_root_logger),
    _Setting("the switch interval", _switch_interval, _set_switch_interval),
    _Setting("the collector of cycles", gc.isenabled, _set_collector),
    _Setting("the working directory", _folder, os.chdir),
    _Setting("environment variables", _environment, _set_environment),
    _Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    _Setting("", random.getstate, random.setstate),
    _Setting("", _numpy_random, _set_numpy_random),
    _Setting("", _torch_random, _set_torch_random),
)
"""The defaults of a library that is not imported yet stand in the functions that read."""
