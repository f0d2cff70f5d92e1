"""What models set for the whole process while they load: put back, and told by name."""

from __future__ import annotations

import asyncio
import builtins
import csv
import decimal
import gc
import io
import locale
import logging
import logging.config
import os
import random
import resource
import socket
import ssl
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.PngImagePlugin
import pytest
import torch
from rich.console import Console

from batcher.models.process_state import MAX_NAMES, ProcessState


def umask() -> int:
    """Return which rights new files do not have."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def stack_size() -> int:
    """Return the bytes of the stacks of new threads, which Python tells only who sets them."""
    size = threading.stack_size(0)
    threading.stack_size(size)
    return size


QUANTISED = torch.backends.quantized
OTHER_ENGINE = next(each for each in QUANTISED.supported_engines if each != QUANTISED.engine)
REDUCED = "allow_fp16_reduced_precision_reduction"

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "PyTorch's default dtype": (
        torch.get_default_dtype,
        lambda: torch.set_default_dtype(torch.bfloat16),
    ),
    "PyTorch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        lambda: torch.use_deterministic_algorithms(True),
    ),
    "PyTorch's precision of float32 (TF32)": (
        torch.get_float32_matmul_precision,
        lambda: torch.set_float32_matmul_precision("high"),
    ),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
    ),
    "torch.backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda: setattr(torch.backends.cudnn, "deterministic", True),
    ),
    "PyTorch's switches (enable_flash_sdp, enable_math_sdp)": (
        lambda: (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        lambda: (
            torch.backends.cuda.enable_flash_sdp(False),
            torch.backends.cuda.enable_math_sdp(False),
        ),
    ),
    f"PyTorch's switches ({REDUCED}, mkldnn.enabled, set_warn_always)": (
        lambda: (
            getattr(torch.backends.cuda.matmul, REDUCED),
            torch.backends.mkldnn.enabled,
            torch.is_warn_always_enabled(),
        ),
        lambda: (
            setattr(torch.backends.cuda.matmul, REDUCED, False),
            torch.backends.mkldnn.set_flags(False),
            torch.set_warn_always(True),
        ),
    ),
    "PyTorch's engine for quantised operators": (
        lambda: torch.backends.quantized.engine,
        lambda: setattr(torch.backends.quantized, "engine", OTHER_ENGINE),
    ),
    "PyTorch's print options (precision, sci_mode)": (
        lambda: str(torch._tensor_str.PRINT_OPTS),
        lambda: torch.set_printoptions(precision=2, sci_mode=True),
    ),
    "torch.hub._hub_dir": (lambda: torch.hub._hub_dir, lambda: torch.hub.set_dir("/of/a/model")),
    "PyTorch's detection of anomalies": (
        torch.is_anomaly_enabled,
        lambda: torch.autograd.set_detect_anomaly(True),
    ),
    "NumPy's print options (precision)": (
        np.get_printoptions,
        lambda: np.set_printoptions(precision=2),
    ),
    "the recursion limit": (sys.getrecursionlimit, lambda: sys.setrecursionlimit(12345)),
    "the path of imports (sys.path)": (
        lambda: list(sys.path),
        lambda: sys.path.insert(0, "/of/a/model"),
    ),
    "NumPy's floating-point errors (divide, over)": (
        np.geterr,
        lambda: np.seterr(divide="raise", over="raise"),
    ),
    "PIL.Image.MAX_IMAGE_PIXELS": (
        lambda: PIL.Image.MAX_IMAGE_PIXELS,
        lambda: setattr(PIL.Image, "MAX_IMAGE_PIXELS", None),
    ),
    "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": (
        lambda: PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        lambda: setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    ),
    "PIL.PngImagePlugin.MAX_TEXT_CHUNK": (
        lambda: PIL.PngImagePlugin.MAX_TEXT_CHUNK,
        lambda: setattr(PIL.PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 30),
    ),
    "socket.socket": (
        lambda: socket.socket,
        lambda: setattr(socket, "socket", type("Proxied", (socket.socket,), {})),
    ),
    "the policy of event loops": (
        lambda: type(asyncio.get_event_loop_policy()),
        lambda: asyncio.set_event_loop_policy(
            type("Own", (asyncio.AbstractEventLoopPolicy,), {})()
        ),
    ),
    "the time-out of sockets": (socket.getdefaulttimeout, lambda: socket.setdefaulttimeout(5)),
    "the root logger": (
        lambda: (logging.root.level, list(logging.root.handlers)),
        lambda: logging.basicConfig(level=logging.DEBUG, force=True),
    ),
    "loggers that are off": (
        lambda: logging.getLogger("batcher.tests.any").disabled,
        lambda: logging.config.dictConfig({"version": 1}),
    ),
    "logging.raiseExceptions": (
        lambda: logging.raiseExceptions,
        lambda: setattr(logging, "raiseExceptions", False),
    ),
    "the class of loggers": (
        logging.getLoggerClass,
        lambda: logging.setLoggerClass(type("Own", (logging.Logger,), {})),
    ),
    "the factory of log records": (
        logging.getLogRecordFactory,
        lambda: logging.setLogRecordFactory(lambda *args: logging.LogRecord(*args)),
    ),
    "the thresholds of the collector": (gc.get_threshold, lambda: gc.set_threshold(7, 7, 7)),
    "the debugging of the collector": (
        gc.get_debug,
        lambda: gc.set_debug(gc.DEBUG_SAVEALL),
    ),
    "the tracing of memory": (tracemalloc.is_tracing, tracemalloc.start),
    "the digits of whole numbers": (
        sys.get_int_max_str_digits,
        lambda: sys.set_int_max_str_digits(0),
    ),
    "the default context of decimals": (
        lambda: [str(decimal.DefaultContext), dict(decimal.DefaultContext.traps)],
        lambda: (
            setattr(decimal.DefaultContext, "prec", 5),
            decimal.DefaultContext.traps.update({decimal.Inexact: True}),
        ),
    ),
    "how libraries are loaded (dlopen)": (
        sys.getdlopenflags,
        lambda: sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL),
    ),
    "the size of the stacks of threads": (stack_size, lambda: threading.stack_size(1 << 22)),
    "the longest field of CSV": (csv.field_size_limit, lambda: csv.field_size_limit(7)),
    "limits of the process (RLIMIT_CORE)": (
        lambda: resource.getrlimit(resource.RLIMIT_CORE)[0],
        lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, -1)),
    ),
    "the folder of temporary files": (
        tempfile.gettempdir,
        lambda: setattr(tempfile, "tempdir", "/of/a/model"),
    ),
    "the switch interval": (sys.getswitchinterval, lambda: sys.setswitchinterval(0.5)),
    "the collector of cycles": (gc.isenabled, gc.disable),
    "sys.stdout": (lambda: sys.stdout, lambda: setattr(sys, "stdout", io.StringIO())),
    "sys.excepthook": (lambda: sys.excepthook, lambda: setattr(sys, "excepthook", print)),
    "sys.tracebacklimit": (
        lambda: getattr(sys, "tracebacklimit", None),
        lambda: setattr(sys, "tracebacklimit", 0),
    ),
    "sys.argv": (lambda: list(sys.argv), lambda: setattr(sys, "argv", ["train.py"])),
    "builtins.print": (lambda: print, lambda: setattr(builtins, "print", str)),
    "threading.excepthook": (
        lambda: threading.excepthook,
        lambda: setattr(threading, "excepthook", print),
    ),
    "ssl._create_default_https_context": (
        lambda: ssl._create_default_https_context,
        lambda: setattr(ssl, "_create_default_https_context", ssl._create_unverified_context),
    ),
    "the rights of new files (umask)": (umask, lambda: os.umask(0o007)),
    "the working directory": (os.getcwd, lambda: os.chdir("/")),
    "environment variables (SOMEBODY_S)": (
        lambda: os.environ.get("SOMEBODY_S"),
        lambda: os.environ.update(SOMEBODY_S="value"),
    ),
    "the locale": (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8" if _is_c() else "C"),
    ),
    "warnings as errors": (
        lambda: list(warnings.filters),
        lambda: warnings.simplefilter("error"),
    ),
}
"""How each setting is read and changed, by what the log calls it."""


def _is_c() -> bool:
    return locale.setlocale(locale.LC_ALL) == "C"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_of_the_process_is_put_back_and_named(name: str) -> None:
    read, change = CHANGES[name]
    before, state = read(), ProcessState()
    try:
        change()
        assert read() != before, "the change changes nothing"
    finally:
        told = state.put_back()
    assert told == [name]
    assert read() == before


def test_a_moving_line_at_a_terminal_that_begins_or_ends_during_a_load_is_no_change() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    status = console.status("loading")
    for move in (status.start, status.stop):
        state = ProcessState()
        move()
        moved = sys.stdout
        assert state.put_back() == []
        assert sys.stdout is moved


def test_the_states_of_random_generators_are_put_back_and_not_named() -> None:
    def draws() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]

    state = ProcessState()
    first = draws()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    assert state.put_back() == []
    assert draws() == first


@pytest.mark.parametrize(
    "change",
    [
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    ],
    ids=["matmul", "cudnn", "all", "one operation", "on the CPU"],
)
def test_the_precision_of_float32_is_put_back_however_it_was_changed(
    change: Callable[[], Any],
) -> None:
    def precisions() -> list[str]:
        backends = (
            torch.backends,
            torch.backends.cuda.matmul,
            torch.backends.cudnn.conv,
            torch.backends.cudnn.rnn,
            torch.backends.mkldnn.matmul,
        )
        return [each.fp32_precision for each in backends]

    before, state = precisions(), ProcessState()
    change()
    assert precisions() != before
    assert state.put_back() == ["PyTorch's precision of float32 (TF32)"]
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == "highest"


def test_gradients_on_the_thread_are_put_back_and_not_named() -> None:
    state = ProcessState()
    torch.set_grad_enabled(False)
    assert state.put_back() == []
    assert torch.is_grad_enabled()


def test_the_c_library_has_its_time_zone_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    state = ProcessState()
    os.environ["TZ"] = "EST5"
    time.tzset()
    assert state.put_back() == ["environment variables (TZ)"]
    assert time.localtime(0).tm_hour == 0


def test_folders_of_installed_libraries_stay_in_the_path_at_its_end(tmp_path: Any) -> None:
    (tmp_path / "library-1.0.dist-info").mkdir()
    before, state = list(sys.path), ProcessState()
    sys.path[:0] = [str(tmp_path), str(tmp_path / "of_the_model")]
    try:
        assert state.put_back() == ["the path of imports (sys.path)"]
        assert sys.path == [*before, str(tmp_path)]
    finally:
        sys.path[:] = before


def test_filters_of_warnings_that_make_no_errors_are_put_back_and_not_named() -> None:
    before, state = list(warnings.filters), ProcessState()
    warnings.filterwarnings("ignore", "whatever")
    assert state.put_back() == []
    assert list(warnings.filters) == before


def test_a_variable_that_was_removed_or_changed_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOVED", "1")
    monkeypatch.setenv("CHANGED", "1")
    state = ProcessState()
    del os.environ["REMOVED"]
    os.environ["CHANGED"] = "2"
    assert state.put_back() == ["environment variables (CHANGED, REMOVED)"]
    assert (os.environ["REMOVED"], os.environ["CHANGED"]) == ("1", "1")


def test_what_opencv_sets_for_windows_is_put_back_and_not_named() -> None:
    before, state = dict(os.environ), ProcessState()
    os.environ.update(QT_QPA_FONTDIR="/cv2/fonts", LD_LIBRARY_PATH="/cv2")
    assert state.put_back() == []
    assert dict(os.environ) == before


def test_of_many_variables_a_few_are_named() -> None:
    state = ProcessState()
    os.environ.update({f"MANY_{number:02}": "1" for number in range(MAX_NAMES + 3)})
    (told,) = state.put_back()
    assert told.endswith("MANY_07 and 3 more)")
    assert not [name for name in os.environ if name.startswith("MANY_")]


def test_variables_that_libraries_set_for_themselves_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KMP_INIT_AT_FORK", raising=False)
    state = ProcessState()
    os.environ["KMP_INIT_AT_FORK"] = "FALSE"
    assert state.put_back() == []
    assert os.environ.pop("KMP_INIT_AT_FORK") == "FALSE"


def test_a_library_that_the_load_has_imported_gets_its_own_defaults_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "PIL.ImageFile")
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    state = ProcessState()
    monkeypatch.setitem(sys.modules, "PIL.ImageFile", PIL.ImageFile)
    assert state.put_back() == ["PIL.ImageFile.LOAD_TRUNCATED_IMAGES"]
    assert PIL.ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_what_cannot_be_put_back_is_named_and_stops_nothing_else(tmp_path: Any) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    state = ProcessState()
    os.chdir(tmp_path)
    gone.rmdir()
    socket.setdefaulttimeout(7)
    assert state.put_back() == ["the time-out of sockets", "the working directory"]
    assert socket.getdefaulttimeout() is None
