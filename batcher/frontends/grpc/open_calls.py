"""Which calls of a connection have no end yet, as the frames of both directions say."""

from __future__ import annotations

from typing import Final

from batcher.frontends.grpc.frames import END_STREAM, GOAWAY, HEADERS, RESET

MAX_OPEN_CALLS: Final = 1024
"""Calls without an end of one connection, of which an honest client has `MAX_CONNECTION_CALLS`.

The library answers nothing to some heads, such as those that come after its own GOAWAY, so these
calls never end. A client could add a million of them to a connection in a second.
"""


class OpenCalls:
    """The calls that a client has begun and whose answers have not ended. Any thread.

    | frame | from the client | from the server |
    |---|---|---|
    | HEADERS with an odd number above all before | begins a call | |
    | RST_STREAM | ends the call | ends the call |
    | any with END_STREAM | | ends the call |

    Attributes:
        numbers: the calls, by the numbers of their streams.
        are_last: whether the library has told the client to begin no more calls.
    """

    def __init__(self) -> None:
        """Begin without calls."""
        self.numbers: set[int] = set()
        self.are_last = False
        self._highest = 0

    @property
    def are_too_many(self) -> bool:
        """Whether the client is to be cut off: no honest one has so many."""
        return len(self.numbers) > MAX_OPEN_CALLS

    def asked(self, kind: int, flags: int, stream: int) -> None:
        """Hear a frame of the client."""
        if kind == HEADERS:
            # The library ignores heads with even numbers, and answers nothing.
            if stream > self._highest and stream & 1:
                self._highest = stream
                self.numbers.add(stream)
        elif kind == RESET:
            self.numbers.discard(stream)

    def answered(self, kind: int, flags: int, stream: int) -> None:
        """Hear a frame of the server."""
        # Frames of stream 0 have flags of the same bit and other meanings; no call has that number.
        if flags & END_STREAM or kind == RESET:
            self.numbers.discard(stream)
        elif kind == GOAWAY:
            self.are_last = True
