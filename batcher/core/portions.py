"""Rows of a file that are read, answered and written together: a portion.

    input ─► reader ─► Portion ─► model ─► Answer, … ─► writer ─► output

A reader gives the portions of a file one after the other. Each portion names the position behind
its last row, so that reading can begin again there, in another process too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

from batcher.core.request import InferenceResponse
from batcher.core.spec import Array
from batcher.errors import BatcherError

Position = list[int]
"""Where a reader goes on: numbers that can be written as JSON, whose meaning is the reader's."""

Place = int | str
"""Where a row stands in the input: the number of its line or row, from 1, or the name of a file."""


class Group(NamedTuple):
    """Rows of a portion that can be sent as one request.

    Attributes:
        rows: which rows of the portion these are, ascending, counted from 0.
        inputs: name to array of shape (rows, *row shape); of a group of one row there may be
            several for the model, which are answered or fail together.
    """

    rows: Sequence[int]
    inputs: Mapping[str, Array]

    def parts(self, most: int) -> list[Group]:
        """Return the rows in parts of at most `most` rows."""
        if len(self.rows) <= most:
            return [self]
        return [self.part(start, start + most) for start in range(0, len(self.rows), most)]

    def part(self, start: int, stop: int) -> Group:
        """Return the rows from `start` up to, not including, `stop`."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        return Group(self.rows[start:stop], inputs)


class Portion(NamedTuple):
    """Rows of a file that are read together.

    Attributes:
        places: where each row stands in the input; as many as there are rows, good and bad.
        groups: the rows that can be sent to the model.
        bad: the rows that cannot, each with the reason.
        after: where the next portion begins.
        done: the part of the input that is read with this portion, from 0 to 1.
        wishes: what the writer must know of each row; empty where that is nothing.
    """

    places: Sequence[Place]
    groups: Sequence[Group]
    bad: Mapping[int, BatcherError]
    after: Position
    done: float
    wishes: Sequence[Any] = ()


class Answer(NamedTuple):
    """What the model gave for some rows of a portion.

    Attributes:
        rows: which rows of the portion these are, ascending, counted from 0.
        response: their outputs.
    """

    rows: Sequence[int]
    response: InferenceResponse


class Written(NamedTuple):
    """A portion as bytes.

    Attributes:
        parts: what is to be appended to each part of the output.
        refused: rows whose answers the format cannot hold, each with the reason.
    """

    parts: Sequence[bytes]
    refused: Mapping[int, BatcherError]


Assemble = Callable[[Sequence[BinaryIO], BinaryIO], None]
"""Writes a whole output from its parts."""

ErrorLine = Callable[[Place, BatcherError, str], bytes]
"""Makes a line of the file of errors, of a row's place, its error, and what clients read of it."""


def error_line(kind: str, place: Place, error: BatcherError, text: str) -> bytes:
    """Return the line that says why the row at `place`, which is a `kind`, has no answer."""
    return json.dumps({kind: place, "code": error.code, "error": text}).encode() + b"\n"


class LineFault(NamedTuple):
    """Why a batch of requests is refused as a whole.

    Attributes:
        code: a word for programs.
        line: the line at fault, from 1; None where it is the file.
        message: what was expected and what came.
        param: the member at fault; None where it is the line.
    """

    code: str
    line: int | None
    message: str
    param: str | None


class BatchCheck(NamedTuple):
    """What is in a batch of requests.

    Attributes:
        model: the model that all of them name.
        requests: how many there are.
        faults: why the batch is refused; empty if it is not.
    """

    model: str
    requests: int
    faults: Sequence[LineFault]


State = dict[str, Any]
"""What a writer must know to go on, as JSON has it."""


class RowReader(Protocol):
    """Reads a file of rows. One thread at a time.

    Attributes:
        begin: the position of the first row.
        place: what the place of a row is: `line`, `row` or `file`.
    """

    begin: Position
    place: str

    def read(self, position: Position, rows: int) -> Portion | None:
        """Return the next `rows` good rows from `position` on, and the bad ones among them.

        There are fewer at the end; None behind it. Raises ClientError: the rest cannot be read.
        """


class RowWriter(Protocol):
    """Makes bytes of answers. One thread at a time.

    Attributes:
        parts: what the parts of the output are called: one, or several that `assemble` joins.
        state: what the next writer of this output must know.
        assemble: writes the whole output, from the parts at their beginnings; None where the one
            part is the output.
    """

    parts: Sequence[str]
    state: State
    assemble: Assemble | None

    def write(self, portion: Portion, answers: Sequence[Answer]) -> Written:
        """Return what `portion` adds to each part."""
