"""A file that a client uploads: a form (`multipart/form-data`), written to the disk as it arrives.

    connection ─► pieces, BEHIND_BYTES at most ─► disk thread: form ─► file ─► note
        ^                                              |
        `── reads on when the disk has caught up <─────'

So an upload of any size takes little memory, and a slow disk makes its client wait, nobody else.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.codecs.body_sink import BodySink
from batcher.codecs.content_coding import too_large
from batcher.codecs.form_upload import FormUpload
from batcher.core.error_text import brief
from batcher.errors import BatcherError, InvalidInput
from batcher.serving.jobs.held_files import UploadedFile
from batcher.serving.jobs.uploads import ArrivingFile

_log = Logger()

BEHIND_BYTES = 1 << 20
"""Bytes that wait for the disk, from which no more is read from the client."""

FORM_BYTES = 1 << 16
"""Bytes of a form besides those of its file."""

_PURPOSE, _ANCHOR, _SECONDS = "purpose", "expires_after[anchor]", "expires_after[seconds]"
_LEAST_S, _MOST_S = 3600, 2_592_000


class FilePlace(Protocol):
    """Where files of clients are kept."""

    def run(self, nbytes: int, function: Any) -> Deferred[Any]:
        """Run `function` on a thread for the disk."""

    def keep(self, arrived: ArrivingFile, filename: str, keep_s: float) -> UploadedFile:
        """Note a whole file. Any thread."""

    def add(self, file: UploadedFile) -> dict[str, Any]:
        """Let clients find a file; return what is said of it."""


class Upload(BodySink):
    """Takes the form of one file. Reactor thread, but where it says otherwise.

    Attributes:
        done: fires with what is said of the file once it is on the disk, or fails with why not.
    """

    def __init__(self, place: FilePlace, file: ArrivingFile, boundary: str) -> None:
        """Write `file`, the parts of whose form are cut by `boundary`. Raises DecodingError."""
        super().__init__(file.most + FORM_BYTES)
        self.done: Deferred[dict[str, Any]] = Deferred(lambda _: None)
        self._place = place
        self._file = file
        self._form = FormUpload(boundary, (_PURPOSE, _ANCHOR, _SECONDS), file.write)
        self._pieces: list[bytes] = []
        self._waiting = 0  # bytes of `_pieces`
        self._writing = 0  # bytes that the disk is writing
        self._nbytes = 0
        self._is_busy = self._is_whole = self._is_closed = False
        self._error: BatcherError | None = None

    @property
    def held(self) -> int:
        """Bytes of memory that the body takes."""
        return self._waiting + self._writing

    @property
    def is_behind(self) -> bool:
        """Whether the disk has enough to write."""
        return self._error is None and self.held >= BEHIND_BYTES

    def feed(self, piece: bytes) -> None:
        """Take a piece of the form. Raises what the form, or the disk, is refused for."""
        if self._error is not None:
            raise self._error
        self._nbytes += len(piece)
        if self._nbytes > self.limit:
            raise too_large(self.limit)
        self._pieces.append(piece)
        self._waiting += len(piece)
        self._go_on()

    def finish(self) -> Upload:
        """Note that the form is whole; `done` says what became of it."""
        self._is_whole = True
        self._go_on()
        return self

    def close(self) -> None:
        """Remove what has come of the file: the rest will not."""
        self._is_closed = True
        self._pieces, self._waiting = [], 0
        self._go_on()

    def _go_on(self) -> None:
        if self._is_busy or self.done.called:
            return
        if self._is_closed:
            self._file.drop()
            return
        if self._error is not None:
            if self._is_whole:
                self.done.errback(self._error)
            return
        if not (self._pieces or self._is_whole):
            return
        pieces, self._pieces = self._pieces, []
        self._writing, self._waiting = self._waiting, 0
        self._is_busy = True
        work = partial(self._keep if self._is_whole else self._write, pieces)
        writing = maybeDeferred(self._place.run, self._writing, work)
        writing.addCallbacks(self._written, self._failed)

    def _write(self, pieces: list[bytes]) -> None:
        """Write what has come of the form. Disk thread."""
        for piece in pieces:
            self._form.feed(piece)

    def _keep(self, pieces: list[bytes]) -> UploadedFile:
        """Write the rest of the form, and keep its file. Disk thread."""
        self._write(pieces)
        self._form.finish()
        fields, filename = self._form.fields, self._form.filename
        assert filename is not None, "the form has a file"
        if fields.get(_PURPOSE) != "batch":
            raise InvalidInput(f"purpose: expected 'batch'; got {brief(fields.get(_PURPOSE))}")
        return self._place.keep(self._file, filename, _keep_s(fields))

    def _written(self, file: UploadedFile | None) -> None:
        was_behind, self._writing, self._is_busy = self.is_behind, 0, False
        if file is not None:
            self._file.most = 0  # it counts as a file from now on, however long this is kept
            shown = self._place.add(file)
            if not self.done.called:
                self.done.callback(shown)
            return
        self._go_on()
        if was_behind and not self.is_behind:
            self.room()

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, BatcherError):
            _log.failure("an upload could not be stored", failure)
            error = BatcherError("file: the server could not store it")
        self._error = error
        self._file.drop()
        self._pieces, self._waiting, self._writing, self._is_busy = [], 0, 0, False
        self._go_on()
        self.room()


def _keep_s(fields: dict[str, str]) -> float:
    """Return the seconds for which a client wants its file kept. Raises InvalidInput."""
    if _ANCHOR not in fields and _SECONDS not in fields:
        return float("inf")
    if fields.get(_ANCHOR) != "created_at":
        got = brief(fields.get(_ANCHOR))
        raise InvalidInput(f"expires_after: expected the anchor 'created_at'; got {got}")
    text = fields.get(_SECONDS, "")
    if not (text.isdecimal() and len(text) < 9 and _LEAST_S <= int(text) <= _MOST_S):
        expected = f"expected {_LEAST_S} to {_MOST_S} seconds"
        raise InvalidInput(f"expires_after: {expected}; got {brief(text)}")
    return float(text)
