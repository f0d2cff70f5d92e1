"""What the processes of one server inherit from the process that starts them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from mmap import mmap
from secrets import token_bytes, token_hex

SECRET_BYTES = 32
"""Bytes by which a front shows that it is one: other programs may know the name of the socket."""

BACKLOG_FRONTS = 128
"""Fronts that may wait for an engine that starts; there are at most 64."""


@dataclass
class Places:
    """Sockets and memory that the engine and all fronts inherit. Any one thread.

    Attributes:
        listeners: the listening sockets of each front; fronts may share them.
        shared: whether they do.
        link: where the engine takes the connections of fronts.
        link_name: the name of that socket.
        secret: what a front says first on such a connection.
        alive: ends when the process that starts the others has ended.
        lifeline: what holds `alive` open, in that process alone.
        ready: its first byte is 1 once an engine has been ready.
    """

    listeners: list[list[socket.socket]]
    shared: bool
    link: socket.socket
    link_name: bytes
    alive: int
    lifeline: int
    secret: bytes = field(default_factory=lambda: token_bytes(SECRET_BYTES), repr=False)
    ready: mmap = field(default_factory=lambda: mmap(-1, 1))

    def note_ready(self) -> None:
        """Note that an engine has been ready: from now on, one that ends is started again."""
        self.ready[0] = 1

    def only(self, number: int | None) -> None:
        """Let go of what is not for the front `number`, or for the engine where it is None."""
        os.close(self.lifeline)
        if number is None:
            # The engine has one set of them, to say where clients connect, until it has said so.
            others = [] if self.shared else self.listeners[1:]
        else:
            self.link.close()
            others = [] if self.shared else self.listeners[:number] + self.listeners[number + 1 :]
        for listeners in others:
            for listener in listeners:
                listener.close()


def link_socket() -> socket.socket:
    """Return a socket that waits for fronts.

    Its name is one of Linux's own, outside of all folders: a server may have none to write to, and
    a server that is killed leaves nothing behind.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.bind(f"\0batcher-{os.getpid()}-{token_hex(8)}")
    link.listen(BACKLOG_FRONTS)
    link.setblocking(False)
    return link


def places_of(listeners: list[list[socket.socket]], shared: bool) -> Places:
    """Return what the processes of a server inherit that listens on `listeners`."""
    link = link_socket()
    return Places(listeners, shared, link, link.getsockname(), *os.pipe())
