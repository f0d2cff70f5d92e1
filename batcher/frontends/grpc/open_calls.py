"""Which calls of a connection have no end yet, as the frames of both directions say."""

from __future__ import annotations

from batcher.frontends.grpc.frames import END_STREAM, GOAWAY, HEADERS, RESET


class OpenCalls:
    """The calls that a client has begun and whose answers have not ended. Any thread.

    | frame | from the client | from the server |
    |---|---|---|
    | HEADERS with a number above all before | begins a call | |
    | RST_STREAM | ends the call | ends the call |
    | any with END_STREAM | | ends the call |

    Attributes:
        numbers: the calls, by the numbers of their streams. The library refuses calls beyond
            `MAX_CONNECTION_CALLS` by RST_STREAM, so there are not many more.
        are_last: whether the library has told the client to begin no more calls.
    """

    def __init__(self) -> None:
        """Begin without calls."""
        self.numbers: set[int] = set()
        self.are_last = False
        self._highest = 0

    def asked(self, kind: int, flags: int, stream: int) -> None:
        """Hear a frame of the client."""
        if kind == HEADERS:
            if stream > self._highest:
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
