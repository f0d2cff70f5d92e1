"""An answer that is a file: read on a thread for the disk, sent as fast as the client reads.

One piece is in memory at a time, and nothing is read while the client does not read.
"""

from __future__ import annotations

from functools import partial
from typing import IO, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.frontends.endpoints.call import FileBody

PIECE_BYTES = 1 << 18
"""Bytes that are read at once."""

_log = Logger()


@implementer(IPushProducer)
class FileSending:
    """Sends one file as the body of a twisted.web request. Reactor thread."""

    def __init__(self, body: FileBody, request: Any) -> None:
        """Send `body`; nothing is opened yet."""
        self._body = body
        self._request = request
        self._left = body.nbytes
        self._file: IO[bytes] | None = None
        self._is_reading = self._is_paused = self._is_over = False
        self._ended: Deferred[bytes] = Deferred(lambda _: self.stopProducing())

    def send(self) -> Deferred[bytes]:
        """Begin; fires with nothing when all is written."""
        self._request.registerProducer(self, True)
        self._read_more()
        return self._ended

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Read on."""
        self._is_paused = False
        self._read_more()

    def stopProducing(self) -> None:
        """Read no more at all: the client has left."""
        self._is_over = True
        if not self._is_reading:
            self._close()

    def _read_more(self) -> None:
        if self._is_reading or self._is_paused or self._is_over:
            return
        if not self._left:
            self._finish()
            return
        self._is_reading = True
        nbytes = min(self._left, PIECE_BYTES)
        reading = maybeDeferred(self._body.run, nbytes, partial(self._piece, nbytes))
        reading.addCallbacks(self._read, self._failed)

    def _piece(self, nbytes: int) -> bytes:
        """Return the next piece of the file. Disk thread."""
        if self._file is None:
            self._file = self._body.path.open("rb")
        content = self._file.read(nbytes)
        if len(content) != nbytes:
            raise OSError("the file has become shorter")
        return content

    def _read(self, content: bytes) -> None:
        self._is_reading = False
        if self._is_over:
            self._close()
            return
        self._left -= len(content)
        self._request.write(content)
        self._read_more()

    def _failed(self, failure: Failure) -> None:
        """Cut the client off: the length of the answer was promised."""
        self._is_reading = False
        if not self._is_over:
            _log.warn("a file could not be sent: {why}", why=failure.getErrorMessage())
            self._is_over = True
            self._request.unregisterProducer()
            self._request.loseConnection()
        self._close()

    def _finish(self) -> None:
        self._is_over = True
        self._close()
        self._request.unregisterProducer()
        self._ended.callback(b"")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
