"""What a job writes: answers, errors, and the journal. The writing thread of the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from batcher.core.error_text import message
from batcher.core.portions import ErrorLine, Portion, Position, RowWriter
from batcher.errors import MODEL_FAILED, BatcherError, ModelError
from batcher.serving.jobs.answering import Outcome
from batcher.serving.jobs.journal import DONE, FINISHING, Record
from batcher.serving.jobs.output_files import OutputFiles


class Answered(NamedTuple):
    """A portion, and what became of its rows.

    Attributes:
        portion: what was read.
        outcomes: of its groups.
    """

    portion: Portion
    outcomes: list[Outcome]

    def errors(self) -> dict[int, BatcherError]:
        """Return the rows without an answer so far, each with the reason."""
        errors = dict(self.portion.bad)
        for outcome in self.outcomes:
            errors |= outcome.errors
        return errors


class Progress(NamedTuple):
    """How far a job is.

    Attributes:
        rows: rows that are written, with and without an answer.
        failed: those without.
        done: the part of the input that they are, from 0 to 1.
        stage: as the journal has it.
    """

    rows: int
    failed: int
    done: float
    stage: str


def progress_of(record: Record) -> Progress:
    """Return how far a job is whose journal says `record`."""
    return Progress(record.rows, record.failed, record.done, record.stage)


def public_text(error: BatcherError) -> str:
    """Return what clients may read of `error`: nothing of a model's own text."""
    is_private = isinstance(error, ModelError) and error.private
    return MODEL_FAILED if is_private else message(error.public or error)


class JobOutput:
    """Writes portions in their order, and keeps the journal.

    Attributes:
        record: what the journal is to say next.
    """

    def __init__(
        self,
        files: OutputFiles,
        writer: RowWriter,
        record: Record,
        error_line: ErrorLine,
        text_of: Callable[[BatcherError], str] = message,
    ) -> None:
        """Go on at `record`; `error_line` makes lines of the file of errors.

        `text_of` returns what they say of an error.
        """
        self._text_of = text_of
        self.record = record
        self._files = files
        self._writer = writer
        self._error_line = error_line

    @property
    def position(self) -> Position:
        """Where reading goes on. Any thread."""
        return self.record.position

    @property
    def progress(self) -> Progress:
        """How far the job is. Any thread."""
        return progress_of(self.record)

    def open(self) -> None:
        """Open the files. Raises ConfigError: they cannot be gone on with."""
        self._files.open(self.record.lengths, self.record.errors_length)
        self.note()

    def add(self, answered: Answered) -> None:
        """Append a portion."""
        portion, errors = answered.portion, answered.errors()
        answers = [answer for outcome in answered.outcomes for answer in outcome.answers]
        written = self._writer.write(portion, answers)
        errors |= written.refused
        found = [(portion.places[row], errors[row]) for row in sorted(errors)]
        lines = b"".join(self._error_line(*each, self._text_of(each[1])) for each in found)
        self._files.append(written.parts, lines)
        self.record = self.record._replace(
            position=portion.after,
            rows=self.record.rows + len(portion.places),
            failed=self.record.failed + len(errors),
            done=portion.done,
        )

    def note(self) -> None:
        """Put on the disk what was appended, and then into the journal how much that is."""
        lengths, errors = self._files.sync()
        self.record = self.record._replace(
            lengths=lengths, errors_length=errors, writer=self._writer.state
        )
        self._files.journal.write(self.record)

    def finish(self) -> None:
        """Put on the disk what was appended, and make the output whole."""
        self.record = self.record._replace(stage=FINISHING, done=1.0)
        self.note()
        self._files.finish(self._writer.assemble)
        self.record = self.record._replace(stage=DONE)
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()
