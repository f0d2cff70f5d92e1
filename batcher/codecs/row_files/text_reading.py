"""Rows of JSON lines and of CSV, a portion at a time.

Each line is a row, as in the body of a request of that format. A portion has as many good rows as
were asked for, so that batches are full and are the same ones whenever the file is read again.
"""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from typing import BinaryIO, NamedTuple

from batcher.codecs.content import Content
from batcher.codecs.format_table import CSV, JSON_LINES, Format, decode_body
from batcher.codecs.formats.csv_rows import MAX_HEADER_BYTES, header_length
from batcher.codecs.formats.json_text import with_json
from batcher.codecs.row_files.grouping import Inputs, grouped, merged
from batcher.codecs.row_files.lines import BEGIN, PORTION_BYTES, LineReader, TextLine
from batcher.core.portions import Group, Portion, Position
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, DecodingError

LEAST_GOOD = 4
"""A portion has at most so many lines for each row that was asked for, if most of them are bad."""


class _Text(NamedTuple):
    """How the text of a file is read.

    Attributes:
        entry: its format.
        head: the header, with the end of its line; empty without one.
        parameters: those of the media type.
    """

    entry: Format
    head: bytes
    parameters: dict[str, str]


class TextReader:
    """Reads the rows of a file of lines.

    Attributes:
        begin: the position of the first row.
        place: what the numbers of rows count.
    """

    place = "line"

    def __init__(
        self, file: BinaryIO, spec: ModelSpec, text: _Text, begin: Position, max_pixels: int
    ) -> None:
        """Read `file`, which is open at any place; a picture has at most `max_pixels`."""
        self.begin = begin
        self._lines = LineReader(file, quoted=text.entry is CSV)
        self._spec = spec
        self._text = text
        self._max_pixels = max_pixels

    def read(self, position: Position, rows: int) -> Portion | None:
        """Return the next `rows` good rows from `position` on, and the bad ones among them.

        There are fewer at the end of the file. None: there are no more lines.
        """
        self._lines.go_to(position)
        places: list[int] = []
        groups: list[Group] = []
        bad: dict[int, BatcherError] = {}
        good = nbytes = 0
        while good < rows and len(places) < LEAST_GOOD * rows and nbytes < PORTION_BYTES:
            lines = self._next(rows - good, PORTION_BYTES - nbytes)
            if not lines:
                break
            more, worse = self._grouped(lines, len(places))
            places += [line.number for line in lines]
            nbytes += sum(len(line.text) for line in lines)
            groups += more
            bad |= worse
            good += sum(len(group.rows) for group in more)
        if not places:
            return None
        return Portion(places, merged(groups), bad, self._lines.position, self._lines.done)

    def _next(self, most: int, most_bytes: int) -> list[TextLine]:
        found: list[TextLine] = []
        nbytes = 0
        while len(found) < most and nbytes < most_bytes:
            line = self._lines.next()
            if line is None:
                break
            found.append(line)
            nbytes += len(line.text)
        return found

    def _grouped(
        self, lines: list[TextLine], first: int
    ) -> tuple[list[Group], dict[int, BatcherError]]:
        """Decode `lines`, the first of which is the row `first` of its portion."""
        bad: dict[int, BatcherError] = {}
        good: list[TextLine] = []
        rows: list[int] = []
        for row, line in enumerate(lines, first):
            error = line.error or self._fault(line.text)
            if error is not None:
                bad[row] = error
            else:
                good.append(line)
                rows.append(row)

        def decode(start: int, stop: int) -> Inputs:
            text = b"\n".join([line.text for line in good[start:stop]])
            return self._decode(text)

        groups, worse = grouped(self._spec, rows, decode)
        return groups, bad | worse

    def _fault(self, text: bytes) -> DecodingError | None:
        """Return why a line is not one row.

        Two rows in one line, and one row in two lines, would together be as many rows as lines, and
        those between would change places. So each line of JSON is read by itself; in CSV only odd
        quotes and ends of lines are in doubt.
        """
        if self._text.entry is JSON_LINES:
            try:
                with_json(text, lambda _: None)
            except DecodingError as err:
                return err
            return None
        if not (b'"' in text or b"\r" in text):
            return None
        try:
            rows = sum(1 for _ in csv.reader([text.decode()], strict=True))
        except (UnicodeDecodeError, csv.Error) as err:
            return DecodingError(f"expected one row of CSV in UTF-8: {err}")
        return None if rows == 1 else DecodingError(f"expected one row of CSV; got {rows}")

    def _decode(self, text: bytes) -> Inputs:
        entry, head, parameters = self._text
        content = Content(head + text, entry.media_type, parameters, self._max_pixels)
        return decode_body(entry, content, self._spec)


def json_lines_reader(file: BinaryIO, spec: ModelSpec, max_pixels: int) -> TextReader:
    """Return a reader of JSON lines."""
    return TextReader(file, spec, _Text(JSON_LINES, b"", {}), BEGIN, max_pixels)


def csv_reader(file: BinaryIO, spec: ModelSpec, header: str) -> TextReader:
    """Return a reader of CSV; `header` is `present`, `absent`, or empty where the file shows it.

    Raises ClientError: the header does not name the model's inputs.
    """
    file.seek(0)
    head = file.read(MAX_HEADER_BYTES)
    mark = len(BOM_UTF8) if head.startswith(BOM_UTF8) else 0
    head = head[mark:]
    length = header_length(head, CSV.spec_of_body(spec), header)
    parameters = {"header": "present" if length else "absent"}
    begin = [mark + length, head.count(b"\n", 0, length)]
    text = _Text(CSV, head[:length], parameters)
    return TextReader(file, spec, text, begin, 0)
