"""Mappings of memory that are given back away from the thread that last used them.

To give back 128 MiB takes the system 40 ms, and Python keeps the interpreter lock when the last
view of a mapping is let go of. On the loop, and on every other thread, all requests would wait for
that. So a mapping that nobody uses any more is handed to `let_go`, which may close the mapping on a
thread of its own: `mmap.close` lets other threads run.

A program that embeds a server decides about its own threads: until it calls `let_go_by`, mappings
are closed at once, where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from mmap import mmap

LetGo = Callable[[mmap], object]
"""Closes a mapping that nobody uses, now or later. Called on any thread, by Python's collector."""


def close(mapping: mmap) -> None:
    """Give the memory of `mapping` back; with the last view, if there are views. Any thread."""
    # Python's collector hands over a mapping and its views together, if objects in a circle hold
    # them. Then the mapping has views, until the collector has deleted the views.
    with suppress(BufferError):
        mapping.close()


_let_go: LetGo = close


class Mapping(mmap):
    """Memory for large bodies and arrays."""

    def __del__(self) -> None:
        """Hand the mapping to whoever closes mappings. Any thread."""
        _let_go(self)


def let_go_by(let_go: LetGo) -> None:
    """Have `let_go` close mappings from now on. Main thread, while no other thread runs."""
    global _let_go
    _let_go = let_go
