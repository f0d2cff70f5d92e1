"""Requests of an OpenAI batch, a portion at a time.

A request may have several rows of the model. What a job counts, and what succeeds or fails, is the
request: here it is one row of its portion. Requests of one row are joined, so that batches are
full; one of several rows is sent by itself. Requests that name files are decoded some at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, BinaryIO, NamedTuple

from batcher.codecs.embeddings import Wish, embedder_of, inputs_for, wish_of
from batcher.codecs.formats.json_documents import inputs_of, pixels_of
from batcher.codecs.formats.json_text import with_json
from batcher.codecs.row_files.batch_lines import EMBEDDINGS, BatchLine, WrongLine, batch_line
from batcher.codecs.row_files.grouping import FAULTS, Inputs, merged
from batcher.codecs.row_files.lines import BEGIN, PORTION_BYTES, LineReader, TextLine
from batcher.codecs.row_files.named_files import AT_ONCE, LIMITS, NamedFiles, names_files
from batcher.codecs.row_files.text_reading import LEAST_GOOD
from batcher.core.error_text import brief
from batcher.core.portions import Group, Place, Portion, Position
from batcher.core.request import nbytes_of
from batcher.core.spec import ModelSpec, check_inputs
from batcher.errors import BatcherError, InvalidInput


class _Asked(NamedTuple):
    """A request of a batch.

    Attributes:
        place: its `custom_id`, or the number of a line that has none.
        inputs: for the model; empty if there is an error.
        rows: of the model; 0 if there is an error.
        wish: what is asked of the answer, of embeddings alone.
        error: why the request cannot be sent.
    """

    place: Place
    inputs: Inputs
    rows: int
    wish: Wish | None
    error: BatcherError | None


class BatchReader:
    """Reads the requests of a batch.

    Attributes:
        begin: the position of the first one.
        place: what the places of requests are.
    """

    begin = BEGIN
    place = "custom_id"

    def __init__(
        self, file: BinaryIO, spec: ModelSpec, max_pixels: int, files: NamedFiles | None = None
    ) -> None:
        """Read `file`, which is open at any place; a picture has at most `max_pixels`.

        Requests may name files that `files` has; None where they may not.
        """
        self._files = files
        self._lines = LineReader(file)
        self._spec = spec
        self._embedder = embedder_of(spec)
        self._max_pixels = max_pixels

    def read(self, position: Position, rows: int) -> Portion | None:
        """Return the next requests from `position` on, which have `rows` good rows together."""
        self._lines.go_to(position)
        asked: list[_Asked] = []
        good = nbytes = 0
        while good < rows and len(asked) < LEAST_GOOD * rows and nbytes < PORTION_BYTES:
            lines = self._next(min(AT_ONCE, rows - good), PORTION_BYTES - nbytes)
            if not lines:
                break
            more = self._all_asked(lines)
            asked += more
            good += sum(each.rows for each in more)
            nbytes += sum(len(line.text) for line in lines)
            if names_files(self._files, lines[0].text):  # a short line may become much
                nbytes += sum(nbytes_of(each.inputs) for each in more)
        return self._portion(asked) if asked else None

    def _portion(self, asked: list[_Asked]) -> Portion:
        groups = [Group([row], each.inputs) for row, each in enumerate(asked) if each.rows]
        alone = [group for group in groups if asked[group.rows[0]].rows > 1]
        joined = merged([group for group in groups if asked[group.rows[0]].rows == 1])
        return Portion(
            [each.place for each in asked],
            joined + alone,
            {row: each.error for row, each in enumerate(asked) if each.error is not None},
            self._lines.position,
            self._lines.done,
            [each.wish for each in asked],
        )

    def _next(self, most: int, most_bytes: int) -> list[TextLine]:
        """Return the next line; or some, at most `most`, if the first of them may name files."""
        found: list[TextLine] = []
        nbytes = 0
        while len(found) < most and nbytes < most_bytes:
            line = self._lines.next()
            if line is None:
                break
            found.append(line)
            nbytes += len(line.text)
            if not names_files(self._files, found[0].text):
                break
        return found

    def _all_asked(self, lines: list[TextLine]) -> list[_Asked]:
        if self._files is None or len(lines) == 1:
            return [self._asked(line) for line in lines]
        return self._files.together([partial(self._asked, line) for line in lines])

    def _asked(self, line: TextLine) -> _Asked:
        if line.error is not None:
            return _wrong(line.number, line.error)
        try:
            return with_json(line.text, partial(self._read, line))
        except FAULTS as err:
            return _wrong(line.number, err)

    def _read(self, line: TextLine, document: Any) -> _Asked:
        found = batch_line(document)
        if isinstance(found, WrongLine):
            return _wrong(line.number, InvalidInput(found.text))
        try:
            inputs, wish = self._inputs(found, line)
            return _Asked(found.custom_id, inputs, check_inputs(self._spec, inputs), wish, None)
        except FAULTS as err:
            return _wrong(found.custom_id, err)

    def _inputs(self, found: BatchLine, line: TextLine) -> tuple[Inputs, Wish | None]:
        """Return what a request asks. Raises ClientError."""
        if found.model != self._spec.name:
            expected = f"model: expected the model of the batch, {self._spec.name}"
            raise InvalidInput(f"{expected}; got {brief(found.model)}")
        if found.url != EMBEDDINGS:
            max_pixels = pixels_of(line.text, self._spec, self._max_pixels)
            decode = partial(inputs_of, found.body, self._spec, LIMITS, max_pixels)
            if self._files is None or not names_files(self._files, line.text):
                return decode(), None
            return self._files.decoded(decode, self._max_pixels), None
        if self._embedder is None:
            raise InvalidInput(f"model: expected one that makes embeddings; got {found.model}")
        wish = wish_of(found.body)
        return inputs_for(wish, self._embedder), wish.without_inputs()


def _wrong(place: Place, error: BatcherError) -> _Asked:
    return _Asked(place, {}, 0, None, error)
