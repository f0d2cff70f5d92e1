"""Processes that a model's code starts with `multiprocessing` end with the model.

    class Model:
        def load(self, device):
            self.reader = multiprocessing.Process(target=read, daemon=True)
            self.reader.start()              # ends when the model is unloaded, or its load fails

A pool that is let go of ends its processes by itself, and a `Process` never does. A model on a
thread shares the process with the server, so nothing of this would end before the server. Hence the
server notes which model has started a process, and ends what is left when the last instance of the
model has ended:

    1. the model is let go of, and its pools are told to end      at most RELEASE_S
    2. processes that were told so by the model's code end        at most GRACE_S
    3. SIGTERM                                                    at most TERMINATE_S
    4. SIGKILL                                                    at most KILL_S

A process belongs to a model if code of the model's own files starts it, by itself or by Python's
library: on the thread of the model, in a hook, or on a thread that such code has started. What an
installed library starts by itself is the library's: the library may share a pool among all models,
as joblib does, and one model that is unloaded must not take the pool from the others. Programs that
`subprocess` starts are for the model to end: in any other Python program, too, they would go on.

The order matters for a pool of `multiprocessing`. A worker that is killed while it waits for work
keeps the lock of the queue for ever, and whoever ends the pool afterwards waits for that lock. So
pools end first, and no process is killed before its pool has ended or has had its time.

Nobody waits but the thread of the model, which is about to end. The steps 2 to 4 have a thread of
their own, since the end of a pool waits for its processes, which may ignore SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from multiprocessing import (
    current_process,
    get_all_start_methods,
    get_start_method,
)
from multiprocessing.pool import Pool, ThreadPool
from multiprocessing.process import BaseProcess
from multiprocessing.util import register_after_fork
from threading import Condition, Event
from types import FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary, finalize, ref

from batcher.models.version_code.importing import package_of_definition
from batcher.models.version_code.names import package_of
from batcher.models.version_code.sources import owner_of
from batcher.workers.collecting import collect_once
from batcher.workers.daemon_threads import start_daemon
from batcher.workers.started_processes import started_processes

RELEASE_S: Final = 2.0
"""Seconds for the model's own code to let go of what it has: to free a device takes one or two."""

GRACE_S: Final = 0.5
"""Seconds for a process that the model's own code has told to end: an unload seems at once."""

TERMINATE_S: Final = 1.0
"""Seconds for a process to write down what it has when it is told to end."""

KILL_S: Final = 2.0
"""Seconds for the system to take a killed process away, which only a call of a driver delays."""

_LOOK_S: Final = 0.01
"""Seconds between two looks at the processes that are to end."""

_MACHINERY: Final = (__name__, "batcher.workers.own_threads", "torch.multiprocessing")
"""Modules that start processes and threads for whoever calls them, besides Python's library."""

_starter: ContextVar[str] = ContextVar("process_starter", default="")
"""The package of the model whose own code has started this thread."""

_package_of: WeakKeyDictionary[BaseProcess, str] = WeakKeyDictionary()
_pools: dict[ref[Pool], str] = {}
"""The package of the model that has made a pool."""

_users: Counter[int] = Counter()
"""How many instances of a model there are, by the identity of the model's definition."""

_ending: set[int] = set()
"""Models whose last instance is about to end, by the identity of their definitions."""

_changed = Condition()
"""Guards `_users` and `_ending`, and tells when a model has ended."""

_ended: set[str] = set()
"""Packages of models that have ended, and start no more processes."""

_process_start = BaseProcess.start
_make_pool = Pool.__init__


def follow_processes() -> None:
    """Note from now on which model starts a process. Any thread."""
    if BaseProcess.start is not _start:
        BaseProcess.start = _start  # type: ignore[method-assign]
        Pool.__init__ = _init_pool  # type: ignore[method-assign]
        register_after_fork(_heed_sigterm, _heed_sigterm)


def starting_package() -> str:
    """Return the package of the model that a process belongs to if it is started now.

    Empty for a process of no model. Any thread.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if package := package_of(name):
            return owner_of(package)
        if not (name.partition(".")[0] in sys.stdlib_module_names or name.startswith(_MACHINERY)):
            return ""
        frame = frame.f_back
    return _starter.get()


def start_for(package: str) -> None:
    """Have processes that this thread starts by itself belong to `package`. Any thread."""
    _starter.set(package)


def _heed_sigterm(_: object) -> None:
    """End by SIGTERM in a process that a model has forked.

    Such a process has inherited a handler that is of use to the server alone, so that it would go
    on, and whoever has told it to end would wait for ever. Main thread of the process.
    """
    if current_process() in _package_of:
        if callable(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def _start(self: BaseProcess) -> None:
    """Start a process, of a model if its code does so. Any thread."""
    if package := starting_package():
        if package in _ended:
            raise RuntimeError("the model has ended, and starts no more processes")
        # Before the start: from then on the model may end.
        _package_of[self] = package
    if package and _forks(self):
        _start_by_fork(self)
    else:
        _process_start(self)


def _forks(process: BaseProcess) -> bool:
    """Return whether `process` is started by a fork. Any thread."""
    method = getattr(process, "_start_method", None) or get_start_method(allow_none=True)
    return (method or get_all_start_methods()[0]) == "fork"


def _start_by_fork(process: BaseProcess) -> None:
    """Start a process; SIGTERM waits until the process heeds it. Any thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        _process_start(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_pool(self: Pool, *args: Any, **options: Any) -> None:
    """Make a pool, of a model if its code does so. Any thread."""
    _make_pool(self, *args, **options)
    package = starting_package()
    if package and not isinstance(self, ThreadPool):
        _pools[ref(self, _forget_pool)] = package


def _forget_pool(pool: ref[Pool]) -> None:
    """Forget a pool that is gone. Any thread."""
    _pools.pop(pool, None)


class OwnProcesses:
    """The processes of a model, for one of its instances."""

    def __init__(self, definition: object) -> None:
        """Know the processes of the model that `definition` describes. Any thread."""
        self._definition = definition

    def begin(self) -> None:
        """Have the model's processes live as long as this instance. Inference thread."""
        key = id(self._definition)
        with _changed:
            # An end that still runs would take the processes of this instance for its own.
            _changed.wait_for(lambda: key not in _ending)
            _users[key] += 1
            _ended.discard(package_of_definition(self._definition))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Let the caller let go of the model meanwhile, and end what it has started.

        Nothing ends while other instances of the model live. Inference thread.
        """
        key = id(self._definition)
        with _changed:
            _users[key] -= 1
            is_last = not _users[key]
            if is_last:
                del _users[key]
                _ending.add(key)
        try:
            with self._processes_ending() if is_last else nullcontext():
                yield
        finally:
            with _changed:
                _ending.discard(key)
                _changed.notify_all()

    @contextmanager
    def _processes_ending(self) -> Iterator[None]:
        """Let the caller let go of the model meanwhile, and end its processes. Inference thread."""
        package = package_of_definition(self._definition)
        try:
            with _let_end(package) if package else nullcontext():
                yield
        finally:
            if package:
                _ended.add(package)
                finalize(self._definition, _ended.discard, package).atexit = False


def end_all_processes() -> None:
    """End whatever has been started here by a model that has the process for itself.

    At the end of a process Python waits for what is left, and for as long as that lives. Main
    thread of the process, at its end.
    """
    with _let_end(""):
        pass


@contextmanager
def _let_end(package: str) -> Iterator[None]:
    """Let the caller let go of a model meanwhile, and end what the code of `package` has started.

    An empty `package` stands for all code. The thread that ends.
    """
    if not _left(package):
        yield
        return
    released = Event()
    ended = _started(lambda: _end(package, released))
    try:
        yield
        _end_pools(package)
    finally:
        released.set()
        ended()
    collect_once()  # pools and their threads hold each other, and descriptors


def _started(function: Callable[[], object]) -> Callable[[], object]:
    """Run `function` on a thread; return what waits for its end. The thread that ends."""
    try:
        return start_daemon(function, "batcher-processes").join
    except RuntimeError:  # no more threads
        return function


def _end(package: str, released: Event) -> None:
    """End the processes of `package` once its model is let go of. A daemon thread."""
    released.wait(RELEASE_S)
    if _have_ended(package, GRACE_S):
        return
    _tell(_left(package), BaseProcess.terminate)
    if _have_ended(package, TERMINATE_S):
        return
    _tell(_left(package), BaseProcess.kill)
    _have_ended(package, KILL_S)


def _end_pools(package: str) -> None:
    """End the pools of `package`, and wait for their processes. The thread that ends."""
    for pool, owner in _pools.copy().items():
        found = pool()
        if package in ("", owner) and found is not None:
            # A model may have a class of its own that raises anything.
            with suppress(Exception):
                found.terminate()


def _left(package: str) -> list[BaseProcess]:
    """Return the processes of `package`, empty for all, that have not ended. Any thread."""
    return [each for each in started_processes() if package in ("", _package_of.get(each))]


def _have_ended(package: str, seconds: float) -> bool:
    """Wait until no process of `package` is left; return whether that took at most `seconds`.

    A daemon thread.
    """
    latest = time.monotonic() + seconds
    while _left(package):
        if time.monotonic() >= latest:
            return False
        time.sleep(_LOOK_S)
    return True


def _tell(processes: Iterable[BaseProcess], send: Callable[[BaseProcess], None]) -> None:
    """Send each of the `processes` a signal by `send`. A daemon thread."""
    for process in processes:
        # It has just ended, or is a library's own kind of process, which raises anything.
        with suppress(Exception):
            send(process)
