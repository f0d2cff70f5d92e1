"""How many rows a batch may have so that it fits into the device's memory.

The ceiling starts at the largest batch size of the settings. When a batch does not fit, the ceiling
becomes half of its rows, or the largest size that has fitted since the last overflow. Another
program that fills the device's memory may go away, so the ceiling rises again: after many full
batches by one step, at most half of the way to the size that did not fit. Each step that fails
doubles the number of full batches before the next step. Once the size that did not fit has fitted,
the number falls back to its first value, because the memory has become larger.

Example: largest size 64, a batch of 64 does not fit: the ceiling is 32. After 200 full batches of
32 it is 36, that is 32 + 64 / 16. If 36 does not fit, it is 32 again, and the next step comes after
400.

A model whose file fixes the size of its batches, or whose rows cost more in large batches, has a
limit of its own, which takes the place of the largest size and never rises.

A single row that does not fit says nothing of how many other rows do. It must not make the batches
of other requests small.
"""

from __future__ import annotations

FULL_BATCHES_BEFORE_RAISE = 200
"""Full batches until the ceiling rises by a step: at 20 ms each that is 4 s, and a failed step
costs one batch in 200.
"""

MAX_FULL_BATCHES_BEFORE_RAISE = 64 * FULL_BATCHES_BEFORE_RAISE

RAISES_TO_LARGEST = 16
"""Steps from nothing to the largest batch."""


class Ceiling:
    """The largest batch that fits. Reactor thread.

    Attributes:
        rows: rows of the largest batch that may be sent.
    """

    def __init__(self, largest: int) -> None:
        """Start with `largest` rows, which the ceiling never exceeds."""
        self.rows = largest
        self._largest = largest
        self._fitted = 0  # rows of the largest batch that fitted since the last overflow
        self._too_large = 2 * largest  # rows of the last overflow; so many never run
        self._full = 0  # full batches since the ceiling last changed
        self._full_before_raise = FULL_BATCHES_BEFORE_RAISE
        self._untried = False  # whether the ceiling was raised and no batch has reached it yet

    @property
    def largest(self) -> int:
        """Rows that a batch may have where memory is not short."""
        return self._largest

    def limit(self, rows: int) -> None:
        """Never allow more than `rows` rows from now on: the model takes no larger batch."""
        self._largest = min(self._largest, rows)
        self.rows = min(self.rows, rows)

    def note_overflow(self, rows: int, fitted: int = 0) -> None:
        """Learn that a batch of `rows` rows did not fit, and that one of `fitted` rows does."""
        if rows > self.rows:
            return  # it was sent before the last overflow, which has said more
        if self._untried:
            doubled = 2 * self._full_before_raise
            self._full_before_raise = min(doubled, MAX_FULL_BATCHES_BEFORE_RAISE)
        fits = max(fit for fit in (0, fitted, self._fitted) if fit < rows)
        # rounded up: the larger half of the batch runs next and must be allowed to
        self.rows = max((rows + 1) // 2, fits)
        self._too_large = rows
        self._fitted = self._full = 0
        self._untried = False

    def note_row_overflow(self, rows: int) -> None:
        """Learn that one row alone did not fit, and allow `rows` rows again.

        `rows` is the ceiling from before the search for that row, whose halves lowered it.
        """
        if rows > self.rows:
            self.rows = rows
            self._too_large = 2 * self._largest
            self._fitted = self._full = 0

    def note_fit(self, rows: int, full: bool = False) -> None:
        """Learn that a batch of `rows` rows fitted.

        A batch may be `full` below the ceiling: the next request may have been too large for it.
        """
        if rows >= self.rows:
            self._untried = False
        if self.rows == self._largest:
            return
        self._fitted = max(self._fitted, rows)
        if rows >= self._too_large:
            self._too_large = 2 * self._largest
            self._full_before_raise = FULL_BATCHES_BEFORE_RAISE
        self._full += full or rows >= self.rows
        if self._full >= self._full_before_raise:
            self._raise()

    def _raise(self) -> None:
        self._full = 0
        step = min(self._largest // RAISES_TO_LARGEST, (self._too_large - self.rows) // 2)
        self.rows = min(self.rows + max(step, 1), self._largest)
        self._untried = True
