"""How many rows a batch may have for the device's memory.

Learnt when one was too much, raised slowly again.

After a batch that did not fit the ceiling is half of it, or the largest that has fitted since.
Whoever fills the device's memory may go away, so after many full batches a little more is tried,
half of the way to what was too much at most; each time that fails, the next try takes twice as
many, until what was too much fits again: then somebody has gone away. A row that does not fit alone
says nothing of how many others do, and must not make their batches small.
"""

from __future__ import annotations

PATIENCE = 200
"""Full batches until a little more is tried: at 20 ms each that is 4 s, and a failed try costs one
batch in 200.
"""

MOST_PATIENCE = 64 * PATIENCE

STEPS = 16
"""Tries from nothing to the largest batch."""


class Ceiling:
    """The largest batch that fits. Reactor thread.

    Attributes:
        rows: of the largest batch that may be sent.
    """

    def __init__(self, largest: int) -> None:
        """Start with `largest` rows, which it never exceeds."""
        self.rows = largest
        self._largest = largest
        self._fitted = 0  # rows of the largest batch that fitted since the last one that did not
        self._too_much = 2 * largest  # rows of that one; so many never run
        self._full = 0  # batches that could not be larger, since it last changed
        self._patience = PATIENCE
        self._trying = False  # whether it has risen, and nothing of that size has fitted yet

    def did_not_fit(self, rows: int) -> None:
        """Learn that a batch of `rows` rows was too much."""
        if rows > self.rows:
            return  # it was sent before the last one was too much
        if self._trying:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        fits = self._fitted if self._fitted < rows else 0
        self.rows = max((rows + 1) // 2, fits)  # the larger half, which is run next
        self._too_much = rows
        self._fitted = self._full = 0
        self._trying = False

    def was_not_at_fault(self, rows: int) -> None:
        """Learn that one row alone is too much.

        `rows`, what might be sent before that was looked for, may be sent again.
        """
        if rows > self.rows:
            self.rows = rows
            self._too_much = 2 * self._largest
            self._fitted = self._full = 0

    def fitted(self, rows: int, full: bool = False) -> None:
        """Learn that a batch of `rows` rows was not too much.

        It may be `full` below the ceiling, where requests are large.
        """
        if rows >= self.rows:
            self._trying = False
        if self.rows == self._largest:
            return
        self._fitted = max(self._fitted, rows)
        if rows >= self._too_much:
            self._too_much = 2 * self._largest
            self._patience = PATIENCE
        self._full += full or rows >= self.rows
        if self._full >= self._patience:
            self._full = 0
            step = min(self._largest // STEPS, (self._too_much - self.rows) // 2)
            self.rows = min(self.rows + max(step, 1), self._largest)
            self._trying = True
