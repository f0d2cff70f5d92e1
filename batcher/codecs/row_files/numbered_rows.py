"""Rows of a file that knows how many there are, read by their numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from batcher.codecs.row_files.grouping import Inputs, grouped
from batcher.core.portions import Portion, Position
from batcher.core.spec import ModelSpec


class NumberedRowsReader(ABC):
    """Reads the rows of a file of columns, which are read in step.

    Attributes:
        begin: the position of the first row.
        place: what the numbers of rows count.
    """

    begin: Position = [0]  # noqa: RUF012  # nobody changes it
    place = "row"

    def __init__(self, spec: ModelSpec) -> None:
        """Read rows for a model of `spec`; a subclass says how many there are."""
        self._spec = spec
        self._rows = 0
        self._most = 0  # rows of a portion
        self._at = -1  # the row that comes next without a jump

    def read(self, position: Position, rows: int) -> Portion | None:
        """Return the next `rows` rows from `position` on, fewer at the end, None behind it."""
        (first,) = position
        end = min(first + min(rows, self._most), self._rows)
        if first >= end:
            return None
        if first != self._at:
            self._go_to(first)
        groups, bad = grouped(self._spec, range(end - first), self._next_rows(end - first))
        self._at = end
        return Portion(range(first + 1, end + 1), groups, bad, [end], end / self._rows)

    @abstractmethod
    def _go_to(self, row: int) -> None:
        """Have `row` be the next. Raises DecodingError."""

    @abstractmethod
    def _next_rows(self, rows: int) -> Callable[[int, int], Inputs]:
        """Read the next `rows` rows; return what decodes some of them, as `grouped` calls it."""
