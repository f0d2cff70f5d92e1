"""TLS over a transport of uvloop, which counts what waits as its plain transports do."""

from __future__ import annotations

import fcntl
import sys
import termios
from typing import Any

from batcher.codecs.content import Buffer

MAX_TLS_WRITE_BYTES = 1 << 16
"""Bytes that are encrypted at a time. Bytes that were encrypted and passed on are in no count, so a
larger write would not pause a client that does not read.
"""


class TlsTransport:
    """A TLS transport of uvloop that keeps the rules of its plain ones. Reactor thread."""

    def __init__(self, transport: Any) -> None:
        """Wrap `transport`."""
        self._transport = transport
        self._closing = False
        self.write_eof, self.can_write_eof, self.abort = (
            transport.write_eof,
            transport.can_write_eof,
            transport.abort,
        )
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.is_closing, self.set_protocol = transport.is_closing, transport.set_protocol

    def write(self, data: Buffer) -> None:
        """Send `data` in pieces, so that the transport notices when the client does not read."""
        if len(data) <= MAX_TLS_WRITE_BYTES:
            self._transport.write(data)
            return
        pieces = memoryview(data)
        for start in range(0, len(data), MAX_TLS_WRITE_BYTES):
            self._transport.write(pieces[start : start + MAX_TLS_WRITE_BYTES])

    def close(self) -> None:
        """Close once everything is sent."""
        self._closing = True
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait in the transport.

        Once `close` was called and none wait there: the bytes that the system holds and the client
        has not acknowledged.
        """
        return self._transport.get_write_buffer_size() or (
            self._in_the_system() if self._closing else 0
        )

    def _in_the_system(self) -> int:
        sock = self._transport.get_extra_info("socket")
        try:
            return int.from_bytes(
                fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder
            )
        except (
            AttributeError,
            OSError,
            ValueError,
        ):  # the socket is gone, or this system does not tell
            return 0
