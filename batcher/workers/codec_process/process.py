"""Calls a function in a child process, which is started with the first call and kept.

Some codecs of C (orjson, numpy's reader) hold the interpreter lock from the first byte of a body to
the last. On a thread of this process they would stop the loop for a second and more; in a child
they cost the loop nothing.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.reduction import recv_handle, send_handle
from threading import Lock
from typing import Any, NamedTuple

from batcher.errors import Draining, Unavailable
from batcher.workers.codec_process.values import file_of, read_value
from batcher.workers.process.child_process import ChildProcess, group_signals
from batcher.workers.process.described_error import rebuild_error

HAS_CHILDREN = sys.platform == "linux"
"""Whether there are files of memory and descriptors of processes."""


class ChildKind(NamedTuple):
    """What a child is started as.

    Attributes:
        module: has the child's `main`.
        environment: variables that the child has where this process has none.
    """

    module: str
    environment: Mapping[str, str]


CODECS = ChildKind("batcher.workers.codec_process.child", {})
"""Calls come now and then, and step back behind the loop."""

READING = ChildKind(
    "batcher.workers.codec_process.reading_child",
    {"MALLOC_MMAP_THRESHOLD_": f"{16 << 20}", "MALLOC_TRIM_THRESHOLD_": f"{64 << 20}"},
)
"""Calls follow each other. With glibc's own thresholds pages go back to the system within each
call, and come again with the next: a tenth of the time.
"""


class CodecProcess:
    """A child that is started when a call needs one, and replaced when it has ended.

    One thread makes all calls; the child lives no longer than that thread.
    """

    def __init__(self, kind: ChildKind = CODECS) -> None:
        """Start nothing; the child will be of `kind`. Any thread."""
        self._kind = kind
        self._lock = Lock()
        self._child: ChildProcess | None = None
        self._current: object = None
        self._stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether the child works on a call. Any thread."""
        return self._current is not None

    def call(self, owner: object, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Return `function(*arguments)`, called in the child; `owner` may be given to `give_up`.

        The arrays in the result are views of shared memory. The calling thread.

        Raises:
            Unavailable: the child ended in the middle of the call, or could not be started.
            Exception: what the function raised.
        """
        if not HAS_CHILDREN:
            return function(*arguments)
        self.send(owner, function, arguments)
        del arguments  # the body lies in a file now
        return self.receive()

    def send(self, owner: object, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Begin a call, one at a time, whose end `receive` waits for. The calling thread.

        Raises Unavailable: the child could not be started.
        """
        call = _file_of((function, arguments))
        del arguments
        try:
            child = self._begin(owner)
            try:
                send_handle(child.connection, call, child.pid)
            except OSError as err:
                raise self._lost(child) from err
        finally:
            os.close(call)

    def receive(self) -> Any:
        """Return the result of the call that was sent, as `call` does. The calling thread."""
        child = self._child
        assert child is not None, "a call was sent"
        try:
            answer = recv_handle(child.connection)
        except (EOFError, OSError, RuntimeError) as err:  # the last: no descriptor is free
            raise self._lost(child) from err
        self._over()
        is_result, value = _read_and_close(answer)
        if is_result:
            return value
        raise rebuild_error(value)

    def give_up(self, owner: object) -> None:
        """End the child if it works on the call of `owner`: nobody waits for that. Any thread."""
        with self._lock:
            if self._current is owner and self._child is not None:
                self._child.kill()

    def rest(self) -> None:
        """End the child unless it works; the next call starts another. Any thread."""
        with self._lock:
            if self._current is None:
                self._close()

    def stop(self) -> None:
        """End the child, and take no more calls. Any thread."""
        with self._lock:
            self._stopped = True
            if self._current is None:
                self._close()
            elif self._child is not None:
                self._child.kill()  # the calling thread notices, and lets go of the child

    def _lost(self, child: ChildProcess) -> Unavailable:
        """Let go of a child that ended in the middle of a call; return the error."""
        with self._lock:
            how = child.end()
            self._close()
        self._over()
        public = "the process that reads and writes bodies ended"
        return Unavailable(f"{public}: {how}", public=public)

    def _over(self) -> None:
        """Note that no call is made now. The calling thread."""
        with self._lock:
            self._current = None
            if self._stopped:
                self._close()

    def _begin(self, owner: object) -> ChildProcess:
        """Note whose call is made, and return the child. The calling thread."""
        with self._lock:
            if self._stopped:
                raise Draining("the server is being stopped and takes no more requests")
            if self._child is not None and _has_ended(self._child):
                self._close()
            if self._child is None:
                self._child = _start(self._kind)
            self._current = owner
            return self._child

    def _close(self) -> None:
        """Let go of the child, if there is one. With the lock."""
        if self._child is not None:
            self._child.close()
            self._child = None


def _file_of(value: object) -> int:
    try:
        return file_of(value)
    except OSError as err:
        raise Unavailable(f"there is no memory for the body: {err}") from err


def _read_and_close(answer: int) -> Any:
    try:
        return read_value(answer)
    except MemoryError as err:
        raise Unavailable(f"there is no memory for the result: {err}") from err
    finally:
        os.close(answer)


def _start(kind: ChildKind) -> ChildProcess:
    # Signals that are blocked here are blocked in the child from birth, until it is ready.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, group_signals())
    try:
        return ChildProcess(0, kind.environment, kind.module)
    except (OSError, MemoryError) as err:
        public = "there is no process to read and write bodies"
        raise Unavailable(f"{public}: {err}", public=public) from err
    finally:
        # Every process that this thread starts later would be deaf to them.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _has_ended(child: ChildProcess) -> bool:
    poller = select.poll()
    poller.register(child.ended_fd, select.POLLIN)
    return bool(poller.poll(0))
