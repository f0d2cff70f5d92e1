"""The server, with a watch on the turns of its loop. Takes the arguments of `serve.py`.

A beat is due on the loop every BEAT_S. How late a beat comes is how long one turn took. Late beats
are split: on a machine with other work a turn also waits for a processor. What counts is the part
in which the server's own threads used a processor:

    own = min(late, processor time of the whole process since the last beat)

The processor time of the loop's own thread (`loop`) tells the two reasons apart that are left: that
thread worked itself, or waited for a thread that held the interpreter lock.

The worst figures are written, as JSON, to the file that the variable WATCH_FILE names, whenever
they change, and are forgotten at a SIGUSR1. With them goes where the loop's thread was when a beat
was LATE_S late.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import orjson
import uvloop

from batcher.app.cli import serve

BEAT_S = 0.005
LATE_S = 0.03


class Watch:
    """Measures the turns of one loop. Loop's thread, but `look`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: Path) -> None:
        """Watch `loop`, and write what is found to `file`."""
        self._loop = loop
        self._file = file
        self._due = time.monotonic()
        self._used, self._used_here = time.process_time(), time.thread_time()
        self._thread = threading.get_ident()
        self._stack: list[str] = []
        self.begin()
        loop.call_later(BEAT_S, self._beat)
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self, *signal_and_frame: object) -> None:
        """Forget what was found."""
        self._write({"own": 0.0, "late": 0.0, "loop": 0.0, "stack": []})

    def _write(self, worst: dict[str, Any]) -> None:
        self._worst = worst
        self._file.write_bytes(orjson.dumps(worst))

    def _beat(self) -> None:
        now, used, here = time.monotonic(), time.process_time(), time.thread_time()
        late = now - self._due
        own = min(late, used - self._used)
        if own > self._worst["own"]:
            stack = self._stack if own > LATE_S else []
            here_only = here - self._used_here
            self._write({"own": own, "late": late, "loop": here_only, "stack": stack})
        self._stack = []
        self._due, self._used, self._used_here = now + BEAT_S, used, here
        self._loop.call_later(BEAT_S, self._beat)

    def _look(self) -> None:
        """Note where the loop's thread is when a beat is late. A thread of its own."""
        while True:
            time.sleep(LATE_S / 3)
            if time.monotonic() - self._due > LATE_S and not self._stack:
                frame = sys._current_frames().get(self._thread)
                self._stack = traceback.format_stack(frame)[-12:] if frame else []


def main() -> None:
    """Serve, with a watch on the first loop that is made."""
    make, file = uvloop.new_event_loop, Path(os.environ["WATCH_FILE"])

    def watched() -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = make()
        signal.signal(signal.SIGUSR1, Watch(loop, file).begin)
        return loop

    uvloop.new_event_loop = watched
    serve()


if __name__ == "__main__":
    main()
