"""A batch that raised is halved until the parts at fault stand alone, so that a poisoned request fails by itself.

One bad part among n costs two runs for each halving, 2*log2(n) in all; where more is wrong the budget ends it, and what is left
fails with the batch's error. The halves alternate with fresh batches: what others sent does not wait behind the search.

Source: group testing by halves; errors that leave the device broken are not searched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from batcher.scheduling.batch import Batch
from batcher.scheduling.queue import Part

ISOLATE = "isolate"
"""The flush reason of a half."""

_FATAL = "CUDA error"
"""In the text of an error after which nothing runs on the device any more."""


class Budget:
    """How often parts of one batch may still be run again."""

    __slots__ = ("runs",)

    def __init__(self, runs: int) -> None:
        """Begin with `runs`."""
        self.runs = runs


class Suspects:
    """Parts that wait to be run again, in halves of the batches that raised."""

    def __init__(self, max_batch_size: int, enabled: bool) -> None:
        """Search in batches of at most `max_batch_size` rows, or, not `enabled`, not at all."""
        self._runs = 2 * (max_batch_size - 1).bit_length() + 2 if enabled else 0
        self._halves: deque[tuple[Sequence[Part], Budget]] = deque()
        self._running: dict[Batch, Budget] = {}

    def __len__(self) -> int:
        """How many halves wait."""
        return len(self._halves)

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parts that wait."""
        return (part for parts, _ in self._halves for part in parts)

    def halve(self, batch: Batch, error: BaseException) -> bool:
        """Take the parts of `batch`, which raised `error`, to be run again; return whether they are not to fail now."""
        budget = self._running.pop(batch, None) or Budget(self._runs)
        if len(batch.parts) == 1 or budget.runs < 2 or _FATAL in str(error):
            return False
        budget.runs -= 2
        middle = len(batch.parts) // 2
        self._halves += ((batch.parts[:middle], budget), (batch.parts[middle:], budget))
        return True

    def succeeded(self, batch: Batch) -> None:
        """Forget a half that did not raise."""
        self._running.pop(batch, None)

    def take(self, is_alive: Callable[[Part], bool], now: float) -> Batch | None:
        """Return the next half as a batch bound `now`, without the parts that are not alive; None if none is left."""
        while self._halves:
            parts, budget = self._halves.popleft()
            alive = [part for part in parts if is_alive(part)]
            if alive:
                batch = Batch(alive, ISOLATE, now)
                self._running[batch] = budget
                return batch
        return None
