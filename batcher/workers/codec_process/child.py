"""The child: calls functions of the codecs, one after the other.

Each call comes as a file of memory, which holds a function and its arguments. The result, or the
error, goes back in a file of its own, since a result may be a view of the body. The child imports
what the codecs need, and no framework.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from batcher.core.frames import clear_all_frames
from batcher.errors import QueueFull
from batcher.workers.codec_process.values import file_of, read_value
from batcher.workers.process.described_error import describe_error
from batcher.workers.process.lifeline import end_with_parent

_NICENESS = 5
"""How much the child steps back behind the loop and the models: a large body may take a little
longer, so that small requests beside that body do not.
"""

REST_MS = 20
"""Milliseconds without a call after which the child gives memory back."""


def main(fd: int, slots: Sequence[int], parent: int, lifeline: int) -> None:
    """Be a child, from start to end, as `process/child.py` says. Main thread of the child."""
    with suppress(OSError):  # a container may forbid that
        os.nice(_NICENESS)
    be_child(fd, parent, lifeline)


def be_child(fd: int, parent: int, lifeline: int) -> None:
    """Answer the calls of `parent` until it has no more. Main thread of the child."""
    parent_fd = end_with_parent(parent, lifeline)
    os.set_inheritable(fd, False)
    with Connection(fd) as connection, suppress(EOFError, OSError):
        _serve(connection, parent_fd)
    os._exit(0)


def _serve(connection: Connection, parent_fd: int) -> None:
    """Call function after function until the parent has no more. Main thread of the child."""
    poller = select.poll()
    for waited_for in (connection.fileno(), parent_fd):
        poller.register(waited_for, select.POLLIN)
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
    # Lists of numbers by the million never refer to themselves, and what does is found below.
    gc.disable()
    gc.freeze()  # what was imported stays, and need not be looked at
    rest_ms: int | None = None
    while True:
        ready = [fd for fd, _ in poller.poll(rest_ms)]
        if parent_fd in ready:
            return
        if not ready:
            # A large body may have been the last one for long. Pages that were given back cost
            # more than a fast codec does, so none are while calls follow each other.
            give_back(0)
            rest_ms = None
            continue
        _answer_next(connection)
        gc.collect()  # a reader that refers to itself holds a body
        rest_ms = REST_MS


def _answer_next(connection: Connection) -> None:
    """Make the call that has come. Main thread of the child."""
    outcome = answer(recv_handle(connection))
    try:
        send_handle(connection, outcome, os.getppid())
    finally:
        os.close(outcome)


def answer(call: int) -> int:
    """Call the function in the file `call`, and close that; return a file that says how it went.

    Main thread of the child.
    """
    try:
        outcome: tuple[bool, Any] = True, _call(call)
    except MemoryError as err:
        error = QueueFull(f"there is no memory to read the body or to write the answer: {err}")
        outcome = False, describe_error(error)
    except Exception as err:
        outcome = False, describe_error(err)
        clear_all_frames(err)
    return file_of(outcome)


def _call(call: int) -> Any:
    try:
        function, arguments = read_value(call)
    finally:
        os.close(call)
    return function(*arguments)
