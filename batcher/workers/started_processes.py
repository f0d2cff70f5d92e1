"""The processes that models on threads have started with `multiprocessing`.

Python ends these processes when an interpreter ends in its usual way. The server ends at once
instead, since a model that hangs cannot be stopped. A worker of a pool that waits for work holds
both ends of its queue, so that it would not even notice the end of the server.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress


def kill_started_processes() -> None:
    """Kill what models of this process have started and left. Main thread, at the end."""
    for child in multiprocessing.active_children():
        # By its number: processes of libraries, such as those of joblib, have no `kill` that works.
        with suppress(OSError):  # it has just ended
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
