"""What a process that a model forks must not keep of the server.

A model may fork: `os.fork`, a pool of `multiprocessing`, workers of a DataLoader. The copy has all
descriptors of the server. While the copy lives, the port would stay open after the server has
ended, and clients would wait for the end of connections that the server has closed.

So right after a fork the copy has the null device in place of each socket on an address of the
server, of HTTP and of gRPC, and in place of a few single descriptors. Sockets are found by their
own address, since gRPC opens its sockets in C. The numbers stay in use: objects that the copy has
inherited may close them later, and must not hit a descriptor of the copy's own.

Programs that are started by `subprocess` have none of this: Python closes descriptors there.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

_addresses: set[int | str] = set()
"""TCP ports, and paths of Unix sockets."""

_descriptors: set[int] = set()
_registered = False


def keep_from_forks(
    *, addresses: tuple[int | str, ...] = (), descriptors: tuple[int, ...] = ()
) -> None:
    """Have copies of this process let go of sockets on `addresses`, and of `descriptors`.

    An address is a TCP port or the path of a Unix socket. Main thread.
    """
    global _registered
    _addresses.update(addresses)
    _descriptors.update(descriptors)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_let_go)


def forget(*, addresses: tuple[int | str, ...] = (), descriptors: tuple[int, ...] = ()) -> None:
    """Take back what `keep_from_forks` was told: it is closed. Main thread."""
    _addresses.difference_update(addresses)
    _descriptors.difference_update(descriptors)


def bound_address(bound: socket.socket) -> int | str:
    """Return the TCP port or the path that `bound` has as its own address; 0 if it has none."""
    name = bound.getsockname()
    if bound.family in (socket.AF_INET, socket.AF_INET6):
        return int(name[1])
    return os.fsdecode(name) if bound.family == socket.AF_UNIX else 0


def _connected_path(connected: socket.socket) -> str:
    """Return the path of the Unix socket that `connected` is connected to, empty if none."""
    if connected.family != socket.AF_UNIX:
        return ""
    try:
        return os.fsdecode(connected.getpeername())
    except OSError:  # it listens
        return ""


def _let_go() -> None:
    """Put the null device in place of what is the server's. Any thread of a copy, at its begin."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _open_descriptors():
        if descriptor in _descriptors or _is_of_server(descriptor):
            with suppress(OSError):
                os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not Linux: only what is known by its number
        return sorted(_descriptors)


def _is_of_server(descriptor: int) -> bool:
    """Return whether `descriptor` is a socket on an address of the server."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        found = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        return bound_address(found) in _addresses or _connected_path(found) in _addresses
    except OSError:
        return False
    finally:
        found.detach()
