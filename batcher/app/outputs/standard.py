"""Standard output and error of this process, as pipes to a pump (`pump.py`)."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from typing import NamedTuple

from twisted.logger import Logger

from batcher.app.outputs import pump
from batcher.core.forks import forget, keep_from_forks

PIPE_BYTES = 1 << 20
"""Bytes that a pipe to the pump holds, where the system allows as many: the server does not wait
for the pump while the pump has no core.
"""

RESTART_AFTER_S = 1.0
"""Seconds before a pump that has ended is started again: one that cannot run must not be started
all the time.
"""

_NAMES = {1: "standard output", 2: "standard error"}
_LABELS = {1: "stdout", 2: "stderr"}
_log = Logger()


class _Pipe(NamedTuple):
    """One pipe to the pump.

    Attributes:
        descriptors: the descriptors of this process that lead into it: 1, 2 or both.
        source: where the pump reads.
        target: the output itself.
    """

    descriptors: tuple[int, ...]
    source: int
    target: int


def open_closed_outputs() -> None:
    """Open what a program was started without: standard input, output or error. Main thread.

    The next socket would take the number of a closed output, and a line that code in C writes there
    would go to a client.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            file = os.fdopen(descriptor, "w", errors="backslashreplace", closefd=False)
            setattr(sys, name, file)


class StandardOutputs:
    """Standard output and error that never wait for their readers.

    Until `begin`, after `end`, and where no pump can be started, they are as they were.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self._pipes: list[_Pipe] = []
        self._control = -1
        self._counts = -1
        self._dropped: mmap.mmap | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def begin(self) -> None:
        """Have everything that is written from now on go through a pump. Main thread."""
        targets = {descriptor: _target(descriptor) for descriptor in (1, 2)}
        # Lines to the same file keep their order in one pipe.
        both = os.path.sameopenfile(targets[1], targets[2])
        groups: list[tuple[int, ...]] = [(1, 2)] if both else [(1,), (2,)]
        # What is thrown away needs no pump.
        groups = [group for group in groups if not _is_null(targets[group[0]])]
        if not groups:
            return
        self._counts = _shared_memory()
        self._dropped = mmap.mmap(self._counts, mmap.PAGESIZE)
        for group in groups:
            self._replace(group, targets[group[0]])
        self._start()
        for stream in (sys.stdout, sys.stderr):
            # Through a pipe Python would keep lines back, and a crash would lose them.
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(line_buffering=True)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start another pump when this one ends before the server does. Reactor thread.

        Linux before 5.3 and other systems do not tell, so that no other pump is started there.
        """
        if self._process is None or not hasattr(os, "pidfd_open"):
            return
        try:
            ended = os.pidfd_open(self._process.pid)
        except OSError as err:
            _log.info("a pump that ends is not started again: {reason}", reason=err)
            return
        loop.add_reader(ended, self._restart, loop, ended)

    def dropped(self) -> Mapping[str, int]:
        """Return how many lines each output has dropped so far. Any thread."""
        if self._dropped is None:
            return {}
        found = {}
        for index, pipe in enumerate(self._pipes):
            (count,) = pump.ENTRY.unpack_from(self._dropped, index * pump.ENTRY.size)
            found["+".join(_LABELS[descriptor] for descriptor in pipe.descriptors)] = count
        return found

    def end(self) -> None:
        """Pass on what was written so far, as far as it is taken; drop the rest. Main thread."""
        process, self._ending = self._process, True
        if process is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for pipe in self._pipes:
            for descriptor in pipe.descriptors:
                os.dup2(null, descriptor)
        os.close(self._control)
        try:
            process.wait(2 * pump.LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _replace(self, descriptors: tuple[int, ...], target: int) -> None:
        """Make `descriptors` lead into a new pipe, whose content is for `target`. Main thread."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # The reading end is kept here too: nobody who writes ever finds the pipe broken.
        source, sink = os.pipe()
        with suppress(OSError):
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for descriptor in descriptors:
            os.dup2(sink, descriptor)
        os.close(sink)
        self._pipes.append(_Pipe(descriptors, source, target))

    def _start(self) -> None:
        """Start a pump; where there can be none, give the outputs back. Main thread."""
        ours, self._control = os.pipe()
        sources = (pipe.source for pipe in self._pipes)
        keep_from_forks(descriptors=(self._control, *sources))
        passed = [ours, self._counts]
        arguments = [str(ours), str(self._counts)]
        for pipe in self._pipes:
            name = " and ".join(_NAMES[descriptor] for descriptor in pipe.descriptors)
            arguments += [name, str(pipe.source), str(pipe.target)]
            passed += [pipe.source, pipe.target]
        # -I and -S: nothing but the standard library, and no environment, that could change it.
        command = [sys.executable, "-I", "-S", pump.__file__, *arguments]
        null = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                command, pass_fds=passed, stdin=null, stdout=null, stderr=self._pipes[-1].target
            )
        except OSError as err:
            self._give_back()
            _log.warn("what is written may wait for its reader: no pump: {reason}", reason=err)
        finally:
            os.close(ours)

    def _give_back(self) -> None:
        for pipe in self._pipes:
            for descriptor in pipe.descriptors:
                os.dup2(pipe.target, descriptor)
        self._pipes.clear()

    def _restart(self, loop: asyncio.AbstractEventLoop, ended: int) -> None:
        loop.remove_reader(ended)
        os.close(ended)
        process = self._process
        if self._ending or process is None:
            return
        process.wait()
        forget(descriptors=(self._control,))
        os.close(self._control)
        loop.call_later(RESTART_AFTER_S, self._start_again, loop)

    def _start_again(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._ending:
            self._process = None
            self._start()
            self.watch(loop)


def _target(descriptor: int) -> int:
    """Return a copy of an output; of one that was closed, a descriptor that takes nothing."""
    if (sys.__stdout__, sys.__stderr__)[descriptor - 1] is None:
        return os.open(os.devnull, os.O_RDONLY)
    return os.dup(descriptor)


def _is_null(descriptor: int) -> bool:
    """Return whether all that is written to `descriptor` is thrown away and never fails."""
    writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return writes and os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))


def _shared_memory() -> int:
    """Return a file without a name, one page long."""
    descriptor = os.memfd_create("batcher-dropped-lines")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return descriptor
