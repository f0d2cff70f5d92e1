"""Answers as JSON lines and as CSV, a portion at a time: line n of the output is of row n.

A row without an answer has a line too, so that input and output can be put side by side: `null` in
JSON lines, empty cells in CSV. Rows that are files have their name in the line.

    input      [1, 2]          [3]      [5, 6]
    output     {"y": [3]}      null     {"y": [11]}
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

from batcher.codecs.formats import csv_answers, json_lines
from batcher.codecs.formats.json_text import to_json
from batcher.core.portions import Answer, Assemble, Portion, State, Written
from batcher.core.ragged import own_rows
from batcher.core.request import InferenceResponse
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ModelContractError

FILE = "file"
"""Name of the member and of the column that holds the name of a row's file."""


class JsonLinesWriter:
    """Writes each row as an object of the outputs.

    Attributes:
        parts: what the parts of the output are called.
        state: what the next writer of this output must know.
    """

    parts: Sequence[str] = ("",)
    assemble: Assemble | None = None

    def __init__(self, spec: ModelSpec, state: State) -> None:
        """Begin, or go on with `state`."""
        self.state = state
        self._spec = spec

    def write(self, portion: Portion, answers: Sequence[Answer]) -> Written:
        """Return the lines of `portion`."""
        lines = [b"null"] * len(portion.places)
        for rows, response in answers:
            text = bytes(json_lines.encode(response, self._spec))
            if len(rows) == len(lines) and not _are_files(portion):
                return Written([text], {})
            for row, line in zip(rows, text.split(b"\n"), strict=False):
                lines[row] = line
        if _are_files(portion):
            lines = [_named(line, name) for line, name in zip(lines, portion.places, strict=True)]
        return Written([b"\n".join([*lines, b""])], {})


def _are_files(portion: Portion) -> bool:
    return isinstance(portion.places[0], str)


def _named(line: bytes, name: object) -> bytes:
    """Return `line` with the name of its file as its first member."""
    member = b'{"%b":%b' % (FILE.encode(), to_json(name))
    return member + (b"}" if line == b"null" else b"," + line[1:])


class CsvWriter:
    """Writes each row as a line of cells, below a header.

    Attributes:
        parts: what the parts of the output are called.
        state: what the next writer of this output must know: the header.
    """

    parts: Sequence[str] = ("",)
    assemble: Assemble | None = None

    def __init__(self, spec: ModelSpec, state: State) -> None:
        """Begin, or go on with `state`."""
        self.state = state
        self._spec = spec
        outputs = spec.outputs
        self._is_plain = all(
            tensor.datatype.name != "BYTES" and tensor.labels is None for tensor in outputs
        )

    def write(self, portion: Portion, answers: Sequence[Answer]) -> Written:
        """Return the lines of `portion`, below the header if they are the first.

        Rows with other cells than the first answered row are refused: a table has one header.
        """
        lines: list[bytes | None] = [None] * len(portion.places)
        refused: dict[int, BatcherError] = {}
        is_first = "header" not in self.state
        for answer in answers:
            self._add(answer, lines, refused)
        if "header" not in self.state:
            # Nobody knows the header yet, so lines without an answer wait for it: as the names of
            # their files, or else as a number.
            if _are_files(portion):
                self.state.setdefault("names", []).extend(portion.places)
            else:
                self.state["waiting"] = self.state.get("waiting", 0) + len(lines)
            return Written([b""], refused)
        texts = [self._empty() if line is None else line for line in lines]
        if _are_files(portion):
            texts = list(map(_named_cells, portion.places, texts))
        before = self._before(portion) if is_first else b""
        return Written([before + b"".join(texts)], refused)

    def _before(self, portion: Portion) -> bytes:
        """Return the header, and lines for the rows before the first answered one."""
        header: bytes = self.state["header"].encode()
        if _are_files(portion):
            header = FILE.encode() + b"," + header
        waiting: int = self.state.pop("waiting", 0)
        named = [_named_cells(name, self._empty()) for name in self.state.pop("names", ())]
        return header + self._empty() * waiting + b"".join(named)

    def _add(
        self, answer: Answer, lines: list[bytes | None], refused: dict[int, BatcherError]
    ) -> None:
        header, texts = self._lines(answer)
        if self.state.setdefault("header", header) != header:
            what = f"expected the cells of the first row, {self.state['header'].strip()}; got "
            error = ModelContractError(f"{what}{header.strip()}: JSON lines hold any rows")
            refused.update(dict.fromkeys(answer.rows, error))
            return
        for row, line in zip(answer.rows, texts, strict=True):
            lines[row] = line

    def _lines(self, answer: Answer) -> tuple[str, list[bytes]]:
        """Return the header of `answer`, and the line of each row."""
        whole = bytes(csv_answers.encode(answer.response, self._spec))
        header, _, text = whole.partition(b"\n")
        if self._is_plain:
            return header.decode() + "\n", text.splitlines(keepends=True)
        # Cells of text may hold ends of lines.
        each = [
            bytes(csv_answers.encode(row_of(answer.response, row), self._spec, with_header=False))
            for row in range(len(answer.rows))
        ]
        return header.decode() + "\n", each

    def _empty(self) -> bytes:
        width = len(next(csv.reader([self.state["header"]])))
        return _line([""] * width)


def _named_cells(name: object, line: bytes) -> bytes:
    """Return `line` with the name of its file as its first cell."""
    return _line([name])[:-1] + b"," + line


def _line(cells: Sequence[object]) -> bytes:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode()


def row_of(response: InferenceResponse, row: int) -> InferenceResponse:
    """Return the part of `response` that is the answer to one of its rows."""
    outputs = {name: own_rows(array, row, row + 1) for name, array in response.outputs.items()}
    return InferenceResponse(response.model, response.version, outputs, 0.0, 0.0, 1)
