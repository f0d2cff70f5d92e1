"""Files that were fetched, in a bounded memory: what was used longest ago goes first."""

from __future__ import annotations

from typing import Final, NamedTuple

LARGEST_PART: Final = 8
"""A file that takes more than an eighth of the room is not kept: it would drive out too much."""

ENTRY_BYTES: Final = 400
"""Bytes of an entry besides its address and its content: objects, and its place in the table."""


class Kept(NamedTuple):
    """A file that is kept.

    Attributes:
        content: its bytes.
        tag: as in `Fetched`.
        until: time until which the file is used without asking, in seconds.
    """

    content: bytes
    tag: str
    until: float


class KeptFiles:
    """Files by address. Reactor thread, but for `peek`.

    Attributes:
        nbytes: bytes that the files take.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes."""
        self.nbytes = 0
        self._max_bytes = max_bytes
        self._files: dict[str, Kept] = {}

    def peek(self, address: str) -> Kept | None:
        """Return what is kept of `address`, old or not. Any thread."""
        return self._files.get(address)

    def put(self, address: str, kept: Kept) -> None:
        """Keep a file, as the one that was used last, in place of an earlier one."""
        self.discard(address)
        nbytes = _nbytes(address, kept)
        if nbytes * LARGEST_PART > self._max_bytes:
            return
        self._files[address] = kept
        self.nbytes += nbytes
        while self.nbytes > self._max_bytes:
            self.discard(next(iter(self._files)))

    def discard(self, address: str) -> None:
        """Forget a file, if it is there."""
        kept = self._files.pop(address, None)
        if kept is not None:
            self.nbytes -= _nbytes(address, kept)


def _nbytes(address: str, kept: Kept) -> int:
    # A character that is not ASCII may take four bytes, and makes all others take as many.
    return len(kept.content) + 4 * len(address) + 4 * len(kept.tag) + ENTRY_BYTES
