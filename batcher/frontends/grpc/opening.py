"""How a connection of HTTP/2 opens: no call passes before the client knows the server's limits.

The library of gRPC (grpcio 1.85) limits what one call may bring in its head to 16 KiB, but only for
clients that have acknowledged the server's settings (RFC 9113, section 6.5). A client that does not
acknowledge them could send 500,000 entries of metadata in one head, and the library makes a Python
object of each one on the loop, before any code of ours sees the call.

So frames of calls are held until the client has acknowledged. Every client library does that as
soon as the server's settings have come, which is one way to the client and back. The libraries for
C, Python and Go begin no call earlier.

| what comes | when it passes |
|---|---|
| the preface, and frames that belong to no call | at once |
| frames of calls | behind the acknowledgement, in their order |
| everything after the acknowledgement | at once |
"""

from __future__ import annotations

from typing import Final

from batcher.frontends.grpc.frames import ACKNOWLEDGED, FRAME_HEAD_BYTES, SETTINGS, STREAM_BITS

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

MAX_FRAME_BYTES: Final = 1 << 14
"""Most bytes of a frame's payload until both sides agree on more (RFC 9113, section 6.5.2)."""

MAX_HELD_BYTES: Final = 3 << 15
"""Bytes of calls that are held for one connection: 96 KiB.

Before the server's settings have come, a client may send 64 KiB of messages, as HTTP/2 sets the
window at first; the rest is room for the heads of a hundred calls.
"""

MAX_SETTINGS_BYTES: Final = 1 << 16
"""Bytes of frames that belong to no call. Honest clients send less than a hundred."""

FRAME_COST_BYTES: Final = 64
"""Bytes that each frame counts besides its own: a frame without payload costs time and memory, too.

7,000 such frames in one read took 8 ms of the loop.
"""


class BadOpening(Exception):
    """The connection is to be closed."""


class Opening:
    """What a client sends until the client has acknowledged the server's settings. Any thread.

    Attributes:
        over: whether the client has acknowledged; what comes afterwards need not pass here.
    """

    def __init__(self) -> None:
        """Begin before the first byte."""
        self.over = False
        self._begun = False
        self._rest = b""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._passed_bytes = 0

    def receive(self, data: bytes, server_has_spoken: bool) -> list[bytes]:
        """Return what may pass of `data`, of what came before it, and in which order.

        Args:
            data: what has come from the client.
            server_has_spoken: whether the server has sent anything, of which its settings are
                first.

        Raises:
            BadOpening: this is not HTTP/2, or no opening that an honest client would make.
        """
        data = self._rest + data
        passed: list[bytes] = []
        start = self._begin(data, passed)
        while self._begun and not self.over and (end := _end_of_frame(data, start)):
            self._take(data[start:end], passed)
            start = end
        self._rest = data[start:]
        if self.over:
            if not server_has_spoken:
                raise BadOpening("expected no acknowledgement before the settings; got one")
            passed += [*self._held, self._rest]
            self._held, self._rest = [], b""
        return passed

    def _begin(self, data: bytes, passed: list[bytes]) -> int:
        """Return where the frames of `data` begin, after the preface if that has just come."""
        if self._begun:
            return 0
        if not data.startswith(PREFACE[: len(data)]):
            raise BadOpening("expected the preface of HTTP/2; got something else")
        if len(data) < len(PREFACE):
            return 0
        self._begun = True
        passed.append(PREFACE)
        return len(PREFACE)

    def _take(self, frame: bytes, passed: list[bytes]) -> None:
        if int.from_bytes(frame[5:FRAME_HEAD_BYTES]) & STREAM_BITS:
            self._hold(frame)
            return
        self._pass(frame, passed)
        self.over = frame[3] == SETTINGS and bool(frame[4] & ACKNOWLEDGED)

    def _hold(self, frame: bytes) -> None:
        self._held.append(frame)
        self._held_bytes += len(frame) + FRAME_COST_BYTES
        if self._held_bytes > MAX_HELD_BYTES:
            raise BadOpening(
                "expected the server's settings to be acknowledged; got more than "
                f"{MAX_HELD_BYTES} bytes of calls before"
            )

    def _pass(self, frame: bytes, passed: list[bytes]) -> None:
        passed.append(frame)
        self._passed_bytes += len(frame) + FRAME_COST_BYTES
        if self._passed_bytes > MAX_SETTINGS_BYTES:
            raise BadOpening(
                "expected the server's settings to be acknowledged; got more than "
                f"{MAX_SETTINGS_BYTES} bytes that belong to no call before"
            )


def _end_of_frame(data: bytes, start: int) -> int:
    """Return where the frame ends that begins at `start`; 0 if not all of it is there.

    Raises:
        BadOpening: the frame is too large.
    """
    if len(data) < start + FRAME_HEAD_BYTES:
        return 0
    size = int.from_bytes(data[start : start + 3])
    if size > MAX_FRAME_BYTES:
        raise BadOpening(f"expected frames of at most {MAX_FRAME_BYTES} bytes; got {size}")
    end = start + FRAME_HEAD_BYTES + size
    return end if end <= len(data) else 0
