"""Batches that did not end well are run again, as far as that helps.

In halves if the model raised, else as they were.

A batch that raised is halved until the parts at fault stand alone, so that a poisoned request fails
by itself. One bad part among n costs two runs for each halving, 2*log2(n) in all. If nothing runs
within a budget of 2*log2(n)+2 runs, with the first, what is left fails with the batch's error. Once
something has run, the model is known to work: then nobody fails who did not fail alone, and if many
are at fault that takes up to 2*n-1 runs. When some searches have found nothing that runs, the model
itself is at fault: until something runs again, no more than the halves of a batch are tried. A
batch that a worker gave back before it had begun runs again; one that had begun may have done
something already, and runs again only where that is allowed, and once.

All this alternates with fresh batches: what others sent does not wait behind it. Only where fresh
batches fail faster than searches end do searches come first, the oldest before all: beside the
queue and its bound must not wait more and more.

Source: group testing by halves; errors that leave the device broken are not searched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from batcher.batching.batch import Batch
from batcher.batching.ceiling import Ceiling
from batcher.batching.part import Part
from batcher.batching.poison import Poison
from batcher.batching.policies.policy import FULL
from batcher.errors import DeviceLost, OutOfMemory, WorkerLost

ISOLATE = "isolate"
"""The flush reason of a half."""

RETRY = "retry"
"""The flush reason of a batch that came back without having ended."""

MEMORY = "memory"
"""The flush reason of a half of what did not fit into the device's memory."""

HOPELESS = 20
"""Batches of several parts that raise in a row, three searches among 64: with one at fault in each,
every other half runs.
"""

RERUNS = (ISOLATE, RETRY, MEMORY)


AT_ONCE = 2
"""Searches that fresh batches run beside."""


class Search:
    """What parts of one batch may still be run again for, and which of them wait for that.

    Attributes:
        runs: runs left in which something has to run well.
        interruptions: of begun runs that are made up for.
        ceiling: rows that a batch might have when that one failed first.
        found_good: whether something has run well.
        waiting: parts that wait to be run, and why; halves of what raised behind all others.
        running: batches of it that run.
    """

    __slots__ = ("ceiling", "found_good", "interruptions", "running", "runs", "waiting")

    def __init__(self, runs: int, interruptions: int, ceiling: int) -> None:
        """Begin with these."""
        self.runs = runs
        self.interruptions = interruptions
        self.ceiling = ceiling
        self.found_good = False
        self.waiting: deque[tuple[Sequence[Part], str]] = deque()
        self.running = 0

    @property
    def can_go_on(self) -> bool:
        """Whether what waits first may run."""
        return bool(self.waiting) and (
            self.runs > 0 or self.found_good or self.waiting[0][1] != ISOLATE
        )


class Reruns:
    """What waits to be run again."""

    def __init__(
        self, ceiling: Ceiling, poison: Poison, isolate: bool, retry: bool = False
    ) -> None:
        """Look for those at fault if `isolate`; run twice what had begun if `retry`.

        Teach `ceiling` and `poison`.
        """
        self._ceiling = ceiling
        self._poison = poison
        self._isolate = isolate
        self._fruitless = 0  # batches of several parts that raised one after the other
        self._interruptions = int(retry)
        self._searches: dict[Search, None] = {}  # that are not over, the oldest first
        self._running: dict[Batch, Search] = {}
        self._waiting = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parts that wait."""
        return (part for search in self._searches for parts, _ in search.waiting for part in parts)

    @property
    def come_first(self) -> bool:
        """Whether they are more than fresh batches may run beside."""
        return len(self._searches) > AT_ONCE

    def take_up(
        self,
        batch: Batch,
        error: BaseException,
        halve: Callable[[Part], Sequence[Part]],
        now: float,
        in_vain: bool = False,
    ) -> Sequence[Part]:
        """Take the parts of `batch`, which failed with `error`, to be run again.

        Return those that fail with it now.

        Those are none, all of the batch, or with these what is left of the batch that it is a half
        of. `halve` cuts a part of several rows in two: what is too large for the device has to be
        made smaller. `in_vain`: nothing will be run.
        """
        search = self._running.pop(batch, None)
        if search is None:
            search = Search(self._runs(len(batch.parts)), self._interruptions, self._ceiling.rows)
        else:
            search.running -= 1
        taken = not in_vain and self._look_into(search, batch, error, halve, now)
        failed = [] if taken else list(batch.parts)
        if not search.running and not search.can_go_on:
            failed += self._empty(search)
        self._keep_or_forget(search)
        return failed

    def succeeded(self, batch: Batch) -> None:
        """Forget one that did not fail."""
        self._fruitless = 0
        self._ceiling.fitted(batch.rows, batch.reason == FULL)
        search = self._running.pop(batch, None)
        if search is not None:
            search.running -= 1
            search.found_good = True
            self._keep_or_forget(search)

    def take(self, is_alive: Callable[[Part], bool], now: float) -> Batch | None:
        """Return what waits in the oldest search as a batch bound `now`, without parts that are not alive, or None."""
        for search in list(self._searches):
            while search.can_go_on or (
                search.waiting and not search.running
            ):  # who was to decide about the rest has left
                parts, reason = search.waiting.popleft()
                self._waiting -= 1
                alive = [part for part in parts if is_alive(part)]
                if alive:
                    batch = Batch(alive, reason, now)
                    self._running[batch] = search
                    search.running += 1
                    search.runs -= reason == ISOLATE
                    return batch
            self._keep_or_forget(search)
        return None

    def _empty(self, search: Search) -> list[Part]:
        left = [part for parts, _ in search.waiting for part in parts]
        self._waiting -= len(search.waiting)
        search.waiting.clear()
        return left

    def _keep_or_forget(self, search: Search) -> None:
        if search.waiting or search.running:
            self._searches[search] = None
        else:
            self._searches.pop(search, None)

    def _look_into(
        self,
        search: Search,
        batch: Batch,
        error: BaseException,
        halve: Callable[[Part], Sequence[Part]],
        now: float,
    ) -> bool:
        if isinstance(error, OutOfMemory):
            if batch.rows == 1:
                self._ceiling.was_not_at_fault(search.ceiling)
                return False
            self._ceiling.did_not_fit(batch.rows)
            parts = batch.parts if len(batch.parts) > 1 else halve(batch.parts[0])
            if len(parts) > 1:
                search.waiting.extendleft(reversed(self._halves(parts, MEMORY)))
            return len(parts) > 1
        lost = isinstance(error, WorkerLost)
        begun = not isinstance(error, WorkerLost) or error.begun
        if len(batch.parts) == 1 and begun:
            self._poison.failed_alone(batch.parts[0], now)
        if lost:
            return self._retry(batch, search, begun)
        return not isinstance(error, DeviceLost) and self._halve(batch, search)

    def _runs(self, parts: int) -> int:
        """Return in how many runs something among `parts` has to run well."""
        return (
            2 * (parts - 1).bit_length() + 1 if self._fruitless < HOPELESS else 2
        )  # and it has run once

    def _retry(self, batch: Batch, search: Search, begun: bool) -> bool:
        if begun:
            if not search.interruptions:
                return False
            search.interruptions -= 1
        search.waiting.appendleft((batch.parts, RETRY))
        self._waiting += 1
        return True

    def _halve(self, batch: Batch, search: Search) -> bool:
        self._fruitless += len(batch.parts) > 1
        if not self._isolate or len(batch.parts) == 1:
            return False
        search.waiting.extend(self._halves(batch.parts, ISOLATE))
        return True

    def _halves(self, parts: Sequence[Part], reason: str) -> list[tuple[Sequence[Part], str]]:
        self._waiting += 2
        middle = len(parts) // 2
        return [(parts[:middle], reason), (parts[middle:], reason)]
