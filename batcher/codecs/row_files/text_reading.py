"""Rows of JSON lines and of CSV, a portion at a time.

Each line is a row, as in the body of a request of that format. A portion has as many good rows as
were asked for, so that batches are full and are the same ones whenever the file is read again.

Lines of JSON may name files. Such lines are decoded one by one, some at a time.
"""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from functools import partial
from typing import Any, BinaryIO, Final, Protocol

from batcher.codecs.content import Content
from batcher.codecs.format_table import CSV, JSON_LINES, decode_body
from batcher.codecs.formats.csv_rows import MAX_HEADER_BYTES, header_length
from batcher.codecs.formats.json_documents import inputs_of, pixels_of
from batcher.codecs.formats.json_text import LARGE_BYTES, from_json, with_json
from batcher.codecs.row_files.grouping import Inputs, grouped, merged
from batcher.codecs.row_files.lines import BEGIN, PORTION_BYTES, LineReader, TextLine
from batcher.codecs.row_files.named_files import AT_ONCE, LIMITS, NamedFiles, names_files
from batcher.codecs.row_files.number_lines import NumberLines
from batcher.core.decoding_limits import NO_LIMITS
from batcher.core.portions import Group, Portion, Position
from batcher.core.request import nbytes_of
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, DecodingError

LEAST_GOOD = 4
"""A portion has at most so many lines for each row that was asked for, if most of them are bad."""

BLOCK_BYTES = 1 << 16
"""Bytes of lines that are decoded together: values of Python take up to eight times as much, and
the model cannot have the interpreter lock while C makes them.
"""


class _Rows(Protocol):
    """How lines become rows.

    Two rows in one line, and one row in two lines, would together be as many rows as lines, and
    those between would change places. So each line is looked at by itself before lines are decoded
    together.
    """

    def row(self, text: bytes) -> Any:
        """Return what `decode` takes of a line. Raises DecodingError: the line is not one row."""

    def names_files(self, text: bytes) -> bool:
        """Return whether a line may name files: then it is decoded by itself."""

    def decode(self, rows: Sequence[Any]) -> Inputs:
        """Return the inputs in some lines. Raises one of `FAULTS`."""


class _JsonRows:
    """Each line is read once: what `row` makes of a line is its text and its value."""

    def __init__(self, spec: ModelSpec, max_pixels: int, files: NamedFiles | None) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._files = files
        self._numbers = NumberLines(spec)

    def row(self, text: bytes) -> tuple[bytes, Any]:
        if len(text) < LARGE_BYTES:
            return text, from_json(text)
        # As objects a long line would take much memory: it is read piece by piece, here and there.
        with_json(text, lambda _: None)
        return text, None

    def names_files(self, text: bytes) -> bool:
        return len(text) < LARGE_BYTES and names_files(self._files, text)

    def decode(self, rows: Sequence[tuple[bytes, Any]]) -> Inputs:
        numbers = self._numbers.inputs(rows)
        if numbers is not None:
            return numbers
        text = b"\n".join([text for text, _ in rows])
        if any(len(text) >= LARGE_BYTES for text, _ in rows):
            content = Content(text, JSON_LINES.media_type, {}, self._max_pixels)
            return decode_body(JSON_LINES, content, self._spec)
        document = {"instances": [value for _, value in rows]}
        max_pixels = pixels_of(text, self._spec, self._max_pixels)
        if self._files is None or not names_files(self._files, text):
            return inputs_of(document, self._spec, NO_LIMITS, max_pixels)
        decode = partial(inputs_of, document, self._spec, LIMITS, max_pixels)
        return self._files.decoded(decode, self._max_pixels)


_LINE_NUMBER: Final = re.compile(r"^line \d+[,:] ")
"""What an error in a body of CSV begins with."""


class _CsvRows:
    """In a line of CSV only odd quotes and ends of lines are in doubt."""

    def __init__(self, spec: ModelSpec, head: bytes) -> None:
        """Read lines below `head`, the header with the end of its line; empty without one."""
        self._spec = spec
        self._head = head

    def row(self, text: bytes) -> bytes:
        if b'"' in text or b"\r" in text:
            try:
                rows = sum(1 for _ in csv.reader([text.decode()], strict=True))
            except (UnicodeDecodeError, csv.Error) as err:
                raise DecodingError(f"expected one row of CSV in UTF-8: {err}") from err
            if rows != 1:
                raise DecodingError(f"expected one row of CSV; got {rows}")
        return text

    def names_files(self, text: bytes) -> bool:
        return False

    def decode(self, rows: Sequence[bytes]) -> Inputs:
        parameters = {"header": "present" if self._head else "absent"}
        content = Content(self._head + b"\n".join(rows), CSV.media_type, parameters, 0)
        try:
            return decode_body(CSV, content, self._spec)
        except DecodingError as err:
            # Counted from the first of these lines. The error's own row has the number in the file.
            raise DecodingError(_LINE_NUMBER.sub("", str(err))) from err


class TextReader:
    """Reads the rows of a file of lines.

    Attributes:
        begin: the position of the first row.
        place: what the numbers of rows count.
    """

    place = "line"

    def __init__(
        self,
        lines: LineReader,
        spec: ModelSpec,
        rows: _Rows,
        begin: Position,
        files: NamedFiles | None = None,
    ) -> None:
        """Read `lines` as `rows` says, from `begin` on; `files` has what they may name."""
        self.begin = begin
        self._lines = lines
        self._spec = spec
        self._rows = rows
        self._files = files

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
            lines, named = self._next(rows - good, min(PORTION_BYTES - nbytes, BLOCK_BYTES))
            if not lines:
                break
            more, worse = (self._each if named else self._grouped)(lines, len(places))
            places += [line.number for line in lines]
            nbytes += sum(len(line.text) for line in lines)
            if named:  # a short line may become much
                nbytes += sum(nbytes_of(group.inputs) for group in more)
            groups += more
            bad |= worse
            good += sum(len(group.rows) for group in more)
        if not places:
            return None
        return Portion(places, merged(groups), bad, self._lines.position, self._lines.done)

    def _next(self, most: int, most_bytes: int) -> tuple[list[TextLine], int]:
        """Return the next lines, and how many of them may name files."""
        found: list[TextLine] = []
        nbytes = named = 0
        while len(found) < most and nbytes < most_bytes and named < AT_ONCE:
            line = self._lines.next()
            if line is None:
                break
            found.append(line)
            nbytes += len(line.text)
            named += self._rows.names_files(line.text)
        return found, named

    def _each(
        self, lines: list[TextLine], first: int
    ) -> tuple[list[Group], dict[int, BatcherError]]:
        """Decode each of `lines` by itself: some may name files, which are fetched meanwhile."""
        assert self._files is not None, "lines name files"
        tasks = [partial(self._grouped, [line], row) for row, line in enumerate(lines, first)]
        decoded = self._files.together(tasks)
        groups = [group for groups, _ in decoded for group in groups]
        return groups, {row: error for _, bad in decoded for row, error in bad.items()}

    def _grouped(
        self, lines: list[TextLine], first: int
    ) -> tuple[list[Group], dict[int, BatcherError]]:
        """Decode `lines`, the first of which is the row `first` of its portion."""
        bad: dict[int, BatcherError] = {}
        good: list[Any] = []
        rows: list[int] = []
        for row, line in enumerate(lines, first):
            found = self._row(line)
            if isinstance(found, DecodingError):
                bad[row] = found
            else:
                good.append(found)
                rows.append(row)

        def decode(start: int, stop: int) -> Inputs:
            return self._rows.decode(good[start:stop])

        groups, worse = grouped(self._spec, rows, decode)
        return groups, bad | worse

    def _row(self, line: TextLine) -> Any:
        """Return what `_Rows.decode` takes of `line`, or a DecodingError: why it is no row."""
        if line.error is not None:
            return line.error
        try:
            return self._rows.row(line.text)
        except DecodingError as err:
            return err


def json_lines_reader(
    file: BinaryIO, spec: ModelSpec, max_pixels: int, files: NamedFiles | None = None
) -> TextReader:
    """Return a reader of JSON lines, which may name `files`; None where they may not."""
    rows = _JsonRows(spec, max_pixels, files)
    return TextReader(LineReader(file), spec, rows, BEGIN, files)


def csv_reader(file: BinaryIO, spec: ModelSpec, header: str) -> TextReader:
    """Return a reader of CSV; `header` is `present`, `absent`, or empty where the file shows it.

    Raises ClientError: the header does not name the model's inputs.
    """
    file.seek(0)
    head = file.read(MAX_HEADER_BYTES)
    mark = len(BOM_UTF8) if head.startswith(BOM_UTF8) else 0
    head = head[mark:]
    length = header_length(head, CSV.spec_of_body(spec), header)
    begin = [mark + length, head.count(b"\n", 0, length)]
    lines = LineReader(file, quoted=True)
    return TextReader(lines, spec, _CsvRows(spec, head[:length]), begin)
