"""A form with one file (`multipart/form-data`), read while it arrives.

The content of the file is handed on piece by piece; the other fields are texts, bounded in number
and in bytes. So a form of any size takes little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from batcher.core.error_text import brief
from batcher.errors import DecodingError, InvalidInput

MAX_FIELDS = 16
"""Most fields of a form, the file included."""

MAX_FIELD_BYTES = 4096
"""Most bytes of a field that is no file."""

MAX_NAME_CHARS = 255
"""Longest name of a file."""

_PIECE_BYTES = 1 << 16
"""Bytes that the parser takes at once, as in `formats/multipart_files.py`."""


class FormUpload:
    """Reads one form. One thread at a time.

    Attributes:
        fields: text by name of a field, once it is whole.
        filename: what the client calls the file; None before the file came.
    """

    def __init__(
        self, boundary: str, names: Collection[str], write: Callable[[bytes], None]
    ) -> None:
        """Read a form of the fields `names` beside `file`, whose content goes to `write`.

        Raises DecodingError: there is no `boundary`.
        """
        if not boundary:
            raise DecodingError(
                "Content-Type: expected multipart/form-data with a boundary; got another"
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._names = names
        self._write = write
        self._name = ""
        self._text = bytearray()
        try:
            self._parser = PushMultipartParser(boundary, max_segment_count=MAX_FIELDS)
        except (MultipartError, ValueError) as err:
            raise DecodingError(f"Content-Type: expected a boundary: {err}") from err

    def feed(self, piece: bytes) -> None:
        """Read a piece of the body. Raises DecodingError, InvalidInput, and what `write` raises."""
        for start in range(0, len(piece), _PIECE_BYTES):
            self._parse(piece[start : start + _PIECE_BYTES])

    def finish(self) -> None:
        """Read the end of the body. Raises DecodingError; InvalidInput: there was no file."""
        self._parse(b"")
        if self.filename is None:
            raise InvalidInput("file: expected a file; got none")

    def _parse(self, piece: bytes) -> None:
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                else:
                    self._add(bytes(event))
        except (MultipartError, ValueError) as err:
            raise DecodingError(f"body: expected multipart/form-data: {err}") from err

    def _begin(self, segment: MultipartSegment) -> None:
        self._name = segment.name
        if segment.name == "file":
            if self.filename is not None:
                raise InvalidInput("file: expected one file; got several")
            self.filename = (segment.filename or "file")[:MAX_NAME_CHARS]
        elif segment.name not in self._names:
            expected = ", ".join(("file", *self._names))
            raise InvalidInput(f"body: expected the fields {expected}; got {brief(segment.name)}")

    def _add(self, content: bytes) -> None:
        if self._name == "file":
            self._write(content)
            return
        self._text += content
        if len(self._text) > MAX_FIELD_BYTES:
            raise InvalidInput(f"{self._name}: expected at most {MAX_FIELD_BYTES} bytes; got more")

    def _end(self) -> None:
        if self._name != "file":
            self.fields[self._name] = self._text.decode("utf-8", "replace")
            self._text.clear()
