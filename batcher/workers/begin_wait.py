"""The loop's wait for a long batch to begin; `thread.py` says what such waits are for.

The loop has just handed a batch to a worker that had nothing to do, and is about to write the
answers of the batch before. Without the wait the worker's thread, which was woken, would ask for
the interpreter lock and get it at the end of a switch interval.

| a batch takes on average | the loop |
|---|---|
| up to `LONG_BATCH_S` | goes on at once |
| more than `LONG_BATCH_S` | waits for the batch to begin, up to `BEGIN_WAIT_S` |
| more, and the last waits were far too long | goes on at once, `BATCHES_WITHOUT_WAIT` times |
"""

from __future__ import annotations

from threading import Event
from time import perf_counter

LONG_BATCH_S = 1e-3
"""Mean seconds of a batch above which the loop lets a batch begin."""

BEGIN_WAIT_S = 300e-6
"""Seconds that the loop waits at most for a batch to begin."""

WAITS_TOO_LONG = 3
"""Waits in a row, each of more than twice `BEGIN_WAIT_S`, that show that the model keeps the lock.

Such waits were waits for the interpreter lock itself: the model keeps the lock while the model
computes, and the next wait would take as long as the next batch. A single such wait shows nothing:
on a busy machine any wait may be as long.
"""

BATCHES_WITHOUT_WAIT = 1000
"""Batches that begin without a wait where the model keeps the lock."""


class BeginWait:
    """A wait of the loop for the inference thread to take up the batch that was handed over last.

    Waiting gives the interpreter lock to the thread.
    """

    def __init__(self) -> None:
        """Wait for nothing yet. Reactor thread."""
        self._begun = Event()
        self._batches_without_wait = 0
        self._too_long = 0  # waits in a row that were

    def reset(self) -> None:
        """Expect a batch to begin, which is about to be handed over. Reactor thread."""
        self._begun.clear()

    def begun(self) -> None:
        """Tell the loop that a batch has begun. Inference thread."""
        self._begun.set()

    def wait(self) -> None:
        """Wait for the batch to begin, unless the model keeps the lock. Reactor thread."""
        if self._batches_without_wait:
            self._batches_without_wait -= 1
            return
        since = perf_counter()
        self._begun.wait(BEGIN_WAIT_S)
        self._too_long = self._too_long + 1 if perf_counter() - since > 2 * BEGIN_WAIT_S else 0
        if self._too_long == WAITS_TOO_LONG:
            self._batches_without_wait, self._too_long = BATCHES_WITHOUT_WAIT, 0
