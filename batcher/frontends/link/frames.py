"""Messages as bytes, one behind the other.

    frame = length of the rest, 8 bytes, little-endian; then the message, as `marshal` writes it

A message is a tuple: its kind, a small number (`messages.py`), and plain values. `marshal` writes
and reads such values in half the time that pickle takes, and makes nothing but plain values of what
it reads. Both ends are one program and one interpreter, so both have one version of the format.
"""

from __future__ import annotations

import marshal
from struct import Struct
from typing import Any, Final

Message = tuple[Any, ...]

_LENGTH: Final = Struct("<Q")
_LENGTH_BYTES: Final = 8


def frame_of(message: Message) -> bytes:
    """Return `message` as a frame. Raises ValueError: it has a value that is not plain."""
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Puts frames together again, in whatever pieces they come."""

    def __init__(self) -> None:
        """Begin without bytes."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages of all frames that are whole with `data`."""
        rest = self._rest
        if not rest:
            found, end = _whole(memoryview(data))
            if end < len(data):
                rest += data[end:]
            return found
        rest += data
        with memoryview(rest) as view:
            found, end = _whole(view)
        del rest[:end]
        return found


def _whole(view: memoryview) -> tuple[list[Message], int]:
    """Return the messages of whole frames at the beginning of `view`, and where the rest begins."""
    found: list[Message] = []
    start, size = 0, len(view)
    while size - start >= _LENGTH_BYTES:
        (length,) = _LENGTH.unpack_from(view, start)
        end = start + _LENGTH_BYTES + length
        if end > size:
            break
        with view[start + _LENGTH_BYTES : end] as message:
            found.append(marshal.loads(message))
        start = end
    return found, start
