"""How a child process notices the end of its parent, and ends with all that the child started.

The end of a parent, however sudden, is noticed in three ways:

| what notices it | when | the case that it is there for |
|---|---|---|
| the kernel, by the lifeline | at once | the model computes and keeps the interpreter lock |
| `recv`, by the parent's descriptor | while the child waits | a fork of the parent lives on |
| a signal handler | at the next line of Python | a fork lives on, and the model computes |

The lifeline is a pipe that nobody writes to. The parent holds its other end; when that end is
closed the kernel kills the child and all that its model started. A fork of the parent keeps the end
open, hence the other two ways. The signal comes when the parent's thread that started the child
ends: that thread outlives the child unless the parent ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
from fcntl import F_GETFL, F_SETFL, F_SETOWN, F_SETSIG, fcntl

from batcher.workers.process.child_process import group_signals

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, lifeline: int) -> int:
    """Have this process and those that its model starts end when the process `parent` does.

    Return a descriptor that can be read from when the parent has ended. Main thread of the child.

    Raises:
        SystemExit: the parent has ended already.
    """
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        raise SystemExit from None
    ignore_group_signals()
    _end_with_lifeline(lifeline)
    _end_with_starter()
    # A parent that ended before the signal was asked for has sent none.
    if os.getppid() != parent:
        raise SystemExit
    return parent_fd


def ignore_group_signals() -> None:
    """Ignore the signals that are the parent's to answer. Main thread of the child."""
    for number in group_signals():
        # Not SIG_IGN, which the programs that a model starts would inherit.
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)
    # The parent's thread blocked them before it started this process.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, group_signals())


def _end_with_lifeline(lifeline: int) -> None:
    """Have the kernel kill the group when the other end of `lifeline` is closed.

    Main thread of the child.
    """
    os.set_inheritable(lifeline, False)
    fcntl(lifeline, F_SETOWN, -os.getpid())
    fcntl(lifeline, F_SETSIG, signal.SIGKILL)
    fcntl(lifeline, F_SETFL, fcntl(lifeline, F_GETFL) | os.O_ASYNC)


def _end_with_starter() -> None:
    """Have a signal end the group when the parent's thread that started this process ends.

    That thread outlives this process, unless the parent ends. Main thread of the child.
    """
    leader = os.getpid()

    def starter_ended(*_: object) -> None:
        # A copy that a model forked inherits this handler, and ends nobody.
        if os.getpid() == leader:
            end_group()

    signal.signal(signal.SIGRTMAX, starter_ended)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGRTMAX])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGRTMAX)


def end_group() -> None:
    """End this process and those that its model started. Any thread."""
    os.killpg(os.getpid(), signal.SIGKILL)
