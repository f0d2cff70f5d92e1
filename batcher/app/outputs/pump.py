"""A process that passes on what the server writes, and drops what its outputs do not take.

The server's standard output and error are pipes to this process, so whoever writes there never
waits: the loop, models, code in C, and the programs that they start. The pump alone waits for the
reader of an output:

    server, children -> pipe -> pump: at most `MAX_WAITING_BYTES` wait -> the output itself

| the output | what happens |
|---|---|
| is read slowly, or not at all | lines wait; those that have no room are dropped and counted |
| fails: full, or its reader is dead | lines are dropped and counted; the next line is tried again |
| takes lines again | a line on standard error tells how many were dropped |

A process, not a thread of the server: code in C that writes while it holds the interpreter lock
would wait for a thread that waits for the lock. And a process passes on the last words of a server
that crashes. It ends when the server does, after it has passed on what came until then.

This file is run as a program, without the package around it, and imports little: so it starts in
some milliseconds and takes little memory.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

MAX_WAITING_BYTES = 16 << 20
"""Bytes that wait for one output: 1.5 s of the access log at 40,000 requests a second."""

PIECE_BYTES = 64 << 10
"""Bytes that are read or written at once: what a pipe holds."""

LAST_WORDS_S = 1.0
"""Seconds to pass on what waits once the server has ended: an output that takes nothing for so long
takes nothing.
"""

ENTRY = struct.Struct("=Q")
"""The format of a count of dropped lines, in the memory that the server shares."""


class Output:
    """One output: what waits for it, and how many lines were dropped.

    Attributes:
        dropped: lines that were dropped, all together.
    """

    def __init__(self, write: Callable[[bytes], int], dropped: int = 0) -> None:
        """Write by `write`, which may wait and may raise OSError, and begin at `dropped`."""
        self.dropped = dropped
        self._write = write
        self._changed = Condition()
        self._pieces: deque[bytes] = deque()
        self._nbytes = 0
        self._cutting = False  # whether the rest of a dropped line is still to come
        self._ends_line = True  # whether what was accepted last ends a line
        self._told = dropped

    def put(self, data: bytes) -> None:
        """Have `data` written, or drop the lines that find no room. Reading thread."""
        with self._changed:
            if self._cutting:
                rest = data.partition(b"\n")
                self._cutting = not rest[1]
                data = rest[2]
            room = MAX_WAITING_BYTES - self._nbytes
            if len(data) > room:
                kept = data.rfind(b"\n", 0, max(room, 0)) + 1
                self._drop(data[kept:])
                self._cutting = not data.endswith(b"\n")
                data = data[:kept]
                if not kept and not self._ends_line:
                    data = b"\n"  # ends the line whose rest was dropped
            if data:
                self._pieces.append(data)
                self._nbytes += len(data)
                self._ends_line = data.endswith(b"\n")
                self._changed.notify_all()

    def write_one(self) -> bool:
        """Write one piece; return whether dropped lines are to be told of. Writing thread.

        That is when the output takes lines again, and all that waited is written.
        """
        with self._changed:
            while not self._pieces:
                self._changed.wait()
            data = self._pieces[0]
        taken = self._written(data)
        with self._changed:
            self._pieces.popleft()
            self._nbytes -= len(data)
            self._changed.notify_all()
            return taken and not self._pieces and self.dropped > self._told

    def untold(self) -> int:
        """Return the lines that were dropped since this was asked last. Writing thread."""
        with self._changed:
            count, self._told = self.dropped - self._told, self.dropped
            return count

    def wait_empty(self, seconds: float) -> None:
        """Wait until everything is written, at most `seconds`. Reading thread."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pieces, max(seconds, 0.0))

    def _written(self, data: bytes) -> bool:
        """Write all of `data`; return whether that went well. Writing thread."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._write(bytes(rest[:PIECE_BYTES])) :]
            except OSError:
                with self._changed:
                    self._drop(bytes(rest))
                return False
        return True

    def _drop(self, data: bytes) -> None:
        """Count the lines of `data`, with the lock held. Any thread."""
        self.dropped += data.count(b"\n") + (not data.endswith(b"\n"))


class Pump:
    """All outputs of one server."""

    def __init__(self, outputs: list[tuple[str, int, Output]], counts: mmap.mmap) -> None:
        """Pass on to `outputs`: name, descriptor to read from, and the output itself.

        `counts` has the number of dropped lines of each.
        """
        self._outputs = outputs
        self._counts = counts

    def run(self, control: int) -> None:
        """Pass on until nobody holds the other end of `control`, or of any pipe."""
        for name, _, output in self._outputs:
            Thread(target=self._write, args=(name, output), daemon=True).start()
        poller, sources = select.poll(), {source: output for _, source, output in self._outputs}
        for descriptor in (control, *sources):
            poller.register(descriptor, select.POLLIN)
        end: float | None = None
        while sources and (end is None or time.monotonic() < end):
            ready = poller.poll(0 if end is not None else None)
            if end is not None and not ready:
                break
            for descriptor, _ in ready:
                if descriptor == control:
                    poller.unregister(control)
                    end = time.monotonic() + LAST_WORDS_S
                elif data := os.read(descriptor, PIECE_BYTES):
                    sources[descriptor].put(data)
                else:
                    poller.unregister(descriptor)
                    del sources[descriptor]
            self._publish()
        self._finish(end or time.monotonic() + LAST_WORDS_S)

    def _finish(self, end: float) -> None:
        for _, _, output in self._outputs:
            output.wait_empty(end - time.monotonic())
        self._publish()

    def _publish(self) -> None:
        for index, (_, _, output) in enumerate(self._outputs):
            ENTRY.pack_into(self._counts, index * ENTRY.size, output.dropped)

    def _write(self, name: str, output: Output) -> None:
        """Write what comes for `output`, for ever. A thread for each output."""
        while True:
            is_due = output.write_one()
            self._publish()  # nothing else may come, whose reading would show what was dropped
            if is_due and (count := output.untold()):
                lines = "1 line" if count == 1 else f"{count} lines"
                text = f"batcher: {lines} to {name} dropped, while nobody took what was written\n"
                # The last is standard error.
                self._outputs[-1][2].put(text.encode())


def writer(target: int) -> Callable[[bytes], int]:
    """Return a function that writes to `target`, and waits where that is needed."""
    poller = select.poll()
    poller.register(target, select.POLLOUT)

    def write(data: bytes) -> int:
        while True:
            try:
                return os.write(target, data)
            except BlockingIOError:  # another program made the output non-blocking
                poller.poll()

    return write


def main(arguments: list[str]) -> None:
    """Pump: descriptors of control and counts, then name, source and target of each output."""
    # These are for the server; the pump ends when the server does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    control, shared = int(arguments[0]), int(arguments[1])
    counts = mmap.mmap(shared, mmap.PAGESIZE)
    outputs = []
    for index, name in enumerate(arguments[2::3]):
        source, target = map(int, arguments[3 * index + 3 : 3 * index + 5])
        (dropped,) = ENTRY.unpack_from(counts, index * ENTRY.size)
        outputs.append((name, source, Output(writer(target), dropped)))
    Pump(outputs, counts).run(control)
    os._exit(0)  # a thread may wait for a reader for ever


if __name__ == "__main__":
    main(sys.argv[1:])
