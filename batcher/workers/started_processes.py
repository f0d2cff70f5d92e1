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
from multiprocessing.process import BaseProcess


def started_processes() -> list[BaseProcess]:
    """Return the processes that this one has started with `multiprocessing`, and that run still.

    Python goes on to count a process that the model's own code has waited for (`os.wait()`), whose
    number may be another program's by now. Any thread.
    """
    return [each for each in multiprocessing.active_children() if not _is_waited_for(each)]


def _is_waited_for(process: BaseProcess) -> bool:
    """Return whether somebody else has waited for the end of `process`. Any thread."""
    # Python's fork server waits for what it has started, and tells Python of the end.
    if getattr(getattr(process, "_popen", None), "method", "") == "forkserver":
        return False
    try:
        os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def kill_started_processes() -> None:
    """Kill what models of this process have started and left. Main thread, at the end."""
    for child in started_processes():
        # By its number: processes of libraries, such as those of joblib, have no `kill` that works.
        with suppress(OSError):  # it has just ended
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
