"""Where the frames of HTTP/2 begin and end in bytes that only pass by (RFC 9113, section 4.1).

A frame begins with a head of nine bytes, which says how long the payload behind the head is. So a
follower reads nine bytes of each frame and copies nothing. The network may cut the bytes anywhere,
in a head too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

FRAME_HEAD_BYTES: Final = 9
STREAM_BITS: Final = 0x7FFF_FFFF
"""The bits of a frame's head that say which call it belongs to; 0 is for no call."""

DATA: Final = 0
HEADERS: Final = 1
RESET: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
GOAWAY: Final = 7
CONTINUATION: Final = 9

ACKNOWLEDGED: Final = 1
END_STREAM: Final = 1
END_HEADERS: Final = 4

FIELD_KINDS: Final = (HEADERS, PUSH_PROMISE, CONTINUATION)
"""Frames with header fields. Without END_HEADERS, only a CONTINUATION may come next."""

NO_MORE_CALLS: Final = struct.pack(">HBBBIII", 0, 8, GOAWAY, 0, 0, STREAM_BITS, 0)
"""A GOAWAY frame: the client is to begin no more calls. It says that no call is too late (the last
number) and that nothing is wrong (0), so every call that the client has begun is answered.
"""

_CALL_KINDS: Final = (HEADERS, RESET, GOAWAY)


class FrameFollower:
    """Follows the frames of one direction of a connection, from the first byte. Any thread.

    It hears of the frames that may begin or end a call: HEADERS, RST_STREAM, GOAWAY, and frames
    with END_STREAM. Others only count their bytes, since a client may send 29,000 in one read.
    """

    def __init__(self, heard: Callable[[int, int, int], None]) -> None:
        """Call `heard` with kind, flags and stream of a frame whose head has come."""
        self._heard = heard
        self._head = b""  # the bytes of a head that has not come whole
        self._payload = 0  # bytes of a payload that have still to come
        self._fields_ended = False  # also before the first frame, which has to be the settings

    def follow(self, data: bytes) -> None:
        """Go on with `data`, which comes behind everything before it."""
        at, size = self._payload, len(data)
        if self._head:
            at = FRAME_HEAD_BYTES - len(self._head)
            self._head += data[:at]
            if len(self._head) < FRAME_HEAD_BYTES:
                return
            at += self._begin_frame(self._head, 0)
            self._head = b""
        while at + FRAME_HEAD_BYTES <= size:
            at += FRAME_HEAD_BYTES + self._begin_frame(data, at)
        self._payload = max(at - size, 0)
        self._head = data[at:]

    def _begin_frame(self, data: bytes, at: int) -> int:
        """Hear the head at the place `at` of `data`; return the length of its payload."""
        kind, flags = data[at + 3], data[at + 4]
        self._fields_ended = kind not in FIELD_KINDS or flags & END_HEADERS != 0
        if kind in _CALL_KINDS or flags & END_STREAM:
            stream = int.from_bytes(data[at + 5 : at + FRAME_HEAD_BYTES], "big")
            self._heard(kind, flags, stream & STREAM_BITS)
        return data[at] << 16 | data[at + 1] << 8 | data[at + 2]

    def is_between_frames(self) -> bool:
        """Return whether another frame may be put in behind the bytes that have come."""
        return self._fields_ended and not self._payload and not self._head

    def follow_to_gap(self, data: bytes) -> int:
        """Go on with `data` up to the first place where another frame may be put in.

        Returns how many bytes that takes: all of them where there is no such place.
        """
        at = 0
        while at < len(data) and not self.is_between_frames():
            step = self._payload or FRAME_HEAD_BYTES - len(self._head)
            self.follow(data[at : at + step])
            at += step
        return min(at, len(data))
