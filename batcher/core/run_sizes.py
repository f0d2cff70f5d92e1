"""With how many rows the batches of a model run, where it does not take every number.

A model that was compiled for some numbers of rows takes these alone. A batch of another number runs
with more rows, which are thrown away afterwards:

    the model takes           a batch of 9 rows runs with    or 8 rows go, and one waits
    multiples of 8            16                             8
    1, 8 and 32               32                             8
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple


class RunSizes(NamedTuple):
    """The numbers of rows that batches run with.

    Attributes:
        multiple: all numbers are multiples of this one.
        sizes: all numbers, ascending; empty for all multiples.
    """

    multiple: int = 1
    sizes: tuple[int, ...] = ()

    def runs_as(self, rows: int) -> int:
        """Return the rows that a batch of `rows` rows runs with. Any thread."""
        if self.sizes:
            place = bisect_left(self.sizes, rows)
            # no batch has more rows than the largest number, see `LoadedModel.max_rows`
            return self.sizes[place] if place < len(self.sizes) else rows
        return rows + -rows % self.multiple

    def below(self, rows: int) -> int:
        """Return the largest number of at most `rows`; 0 if there is none. Any thread."""
        if self.sizes:
            place = bisect_right(self.sizes, rows)
            return self.sizes[place - 1] if place else 0
        return rows - rows % self.multiple


ANY_ROWS = RunSizes()
"""Each batch runs with its own rows."""
