"""The server as process 1, as in a container without an init of its own.

Whatever a model's programs leave behind becomes a child of process 1, and stays a zombie until
process 1 waits for it. The server itself must not wait for any child: it would take the statuses
that `subprocess`, `multiprocessing` and its own workers wait for. So process 1 forks at once, the
copy is the server, and process 1 does no more than what an init does:

    process 1: waits for every child, passes signals on, ends as the server ends
      └── the server, and what its models start

Signals are blocked from before the fork, so that none is lost. Everywhere else nothing happens.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NoReturn

# Of each program that is frozen or debugged, or of the process itself alone.
_OWN = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGTTIN,
    signal.SIGTTOU,
}


def leave_first_place() -> None:
    """Return in a copy of this process if this is process 1, else here. Main thread, no others."""
    if os.getpid() != 1:
        return
    signals = signal.valid_signals() - _OWN
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = os.fork()
    if server:
        _be_init(server, signals)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_init(server: int, signals: set[signal.Signals]) -> NoReturn:
    """Pass signals on to `server` and wait for children, until the server has ended."""
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(server, number)
            continue
        with suppress(ChildProcessError):
            # One signal may stand for many children.
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == server:
                    status = os.waitstatus_to_exitcode(ended[1])
                    # As shells tell of a signal; process 1 cannot end by one.
                    os._exit(status if status >= 0 else 128 - status)
