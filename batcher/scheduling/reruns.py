"""Batches that did not end well are run again, as far as that helps: in halves if the model raised, else as they were.

A batch that raised is halved until the parts at fault stand alone, so that a poisoned request fails by itself. One bad part
among n costs two runs for each halving, 2*log2(n) in all; where more is wrong the budget, 2*log2(n)+2 runs with the first, ends
it, and what is left fails with the batch's error. When some searches have found nothing that runs, the model itself is at
fault: until something runs again, no more than the halves of a batch are tried. A batch that a worker gave back before it had
begun runs again; one that had begun may have done something already, and runs again only where that is allowed, and once.

All this alternates with fresh batches: what others sent does not wait behind it.

Source: group testing by halves; errors that leave the device broken are not searched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from batcher.errors import DeviceLost, OutOfMemory, WorkerLost
from batcher.scheduling.batch import Batch
from batcher.scheduling.ceiling import Ceiling
from batcher.scheduling.part import Part
from batcher.scheduling.poison import Poison
from batcher.scheduling.policy import FULL

ISOLATE = "isolate"
"""The flush reason of a half."""

RETRY = "retry"
"""The flush reason of a batch that came back without having ended."""

MEMORY = "memory"
"""The flush reason of a half of what did not fit into the device's memory."""

HOPELESS = 20
"""Batches of several parts that raise in a row, three searches among 64: with one at fault in each, every other half runs."""

RERUNS = (ISOLATE, RETRY, MEMORY)


class Budget:
    """What parts of one batch may still be run again for.

    Attributes:
        runs: runs in which to look for those at fault.
        interruptions: of begun runs that are made up for.
        ceiling: rows that a batch might have when that one failed first.
    """

    __slots__ = ("ceiling", "interruptions", "runs")

    def __init__(self, runs: int, interruptions: int, ceiling: int) -> None:
        """Begin with these."""
        self.runs = runs
        self.interruptions = interruptions
        self.ceiling = ceiling


class Rerun(NamedTuple):
    """Parts that wait to be run again, why, and how often still."""

    parts: Sequence[Part]
    reason: str
    budget: Budget


class Reruns:
    """What waits to be run again."""

    def __init__(self, ceiling: Ceiling, poison: Poison, isolate: bool, retry: bool = False) -> None:
        """Look for those at fault if `isolate`; run twice what had begun if `retry`; teach `ceiling` and `poison`."""
        self._ceiling = ceiling
        self._poison = poison
        self._isolate = isolate
        self._fruitless = 0  # batches of several parts that raised one after the other
        self._interruptions = int(retry)
        self._waiting: deque[Rerun] = deque()
        self._running: dict[Batch, Budget] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parts that wait."""
        return (part for rerun in self._waiting for part in rerun.parts)

    def take_up(
        self, batch: Batch, error: BaseException, halve: Callable[[Part], Sequence[Part]], now: float, in_vain: bool = False
    ) -> bool:
        """Take the parts of `batch`, which failed with `error`, to be run again; return whether they are not to fail now.

        `halve` cuts a part of several rows in two: what is too large for the device has to be made smaller. `in_vain`: nothing
        will be run.
        """
        budget = self._running.pop(batch, None)
        if budget is None:
            budget = Budget(self._runs(len(batch.parts)), self._interruptions, self._ceiling.rows)
        if in_vain:
            return False
        if isinstance(error, OutOfMemory):
            if batch.rows == 1:
                self._ceiling.was_not_at_fault(budget.ceiling)
                return False
            self._ceiling.did_not_fit(batch.rows)
            parts = batch.parts if len(batch.parts) > 1 else halve(batch.parts[0])
            return len(parts) > 1 and self._add_halves(parts, MEMORY, budget)
        lost = isinstance(error, WorkerLost)
        begun = not isinstance(error, WorkerLost) or error.begun
        if len(batch.parts) == 1 and begun:
            self._poison.failed_alone(batch.parts[0], now)
        if lost:
            return self._retry(batch, budget, begun)
        return not isinstance(error, DeviceLost) and self._halve(batch, budget)

    def succeeded(self, batch: Batch) -> None:
        """Forget one that did not fail."""
        self._fruitless = 0
        self._ceiling.fitted(batch.rows, batch.reason == FULL)
        self._running.pop(batch, None)

    def take(self, is_alive: Callable[[Part], bool], now: float) -> Batch | None:
        """Return what waits longest as a batch bound `now`, without the parts that are not alive; None if none is left."""
        while self._waiting:
            rerun = self._waiting.popleft()
            alive = [part for part in rerun.parts if is_alive(part)]
            if alive:
                batch = Batch(alive, rerun.reason, now)
                self._running[batch] = rerun.budget
                return batch
        return None

    def _runs(self, parts: int) -> int:
        """Return in how many runs those at fault among `parts` are to be found."""
        runs = 2 * (parts - 1).bit_length() + 1  # and it has run once
        return 0 if not self._isolate else runs if self._fruitless < HOPELESS else 2

    def _retry(self, batch: Batch, budget: Budget, begun: bool) -> bool:
        if begun:
            if not budget.interruptions:
                return False
            budget.interruptions -= 1
        self._waiting.append(Rerun(batch.parts, RETRY, budget))
        return True

    def _halve(self, batch: Batch, budget: Budget) -> bool:
        self._fruitless += len(batch.parts) > 1
        if len(batch.parts) == 1 or budget.runs < 2:
            return False
        budget.runs -= 2
        return self._add_halves(batch.parts, ISOLATE, budget)

    def _add_halves(self, parts: Sequence[Part], reason: str, budget: Budget) -> bool:
        middle = len(parts) // 2
        for half in (parts[:middle], parts[middle:]):
            self._waiting.append(Rerun(half, reason, budget))
        return True
