"""What becomes of a batch that failed: which of its parts run again, in which pieces, how often.

The scheduler reports each failed batch here. `Reruns` keeps the pieces that shall run again, hands
them out one batch at a time, and returns the parts that nothing can help, which then fail with the
error of their batch. Three failures lead to another run:

    error                        what runs again                                 flush reason
    the model raised             the two halves, behind the batch's other pieces isolate
    device memory was too small  the two halves, before its other pieces         memory
    the worker ended             the same parts, before its other pieces         retry

The pieces of an older batch run before those of a younger one.

Every other failure is final: the device is lost (no run on it can succeed), one part stood alone
and raised, or the settings forbid the rerun.

**Isolation.** A batch that raised is halved until the parts at fault stand alone, so that a bad
request fails by itself. One bad part among n costs two runs for each halving, 2*log2(n) in all.
Example: a batch of the parts 1 to 8, of which part 3 is bad. Six runs follow the first:

    run      parts   result    pieces that wait afterwards
    first    1-8     raises    1-4, 5-8
    rerun 1  1-4     raises    5-8, 1-2, 3-4
    rerun 2  5-8     answers   1-2, 3-4
    rerun 3  1-2     answers   3-4
    rerun 4  3-4     raises    3, 4
    rerun 5  3       raises    4               part 3 stood alone, so part 3 fails
    rerun 6  4       answers   none

**The budget.** As long as nothing of the batch has run well, the model itself may be broken, and
halving on would only repeat the failure. So the budget is

    runs = 2 * log2(n) + 2, log2 rounded up; for n = 8: the first run and 7 reruns

If no piece has run well by then, all that is left fails with the batch's error. Once one piece has
run well, the model is known to work. Then the budget no longer counts, and no part fails that did
not fail alone; if many parts are bad, that takes up to 2*n-1 runs. After
`FAILED_BATCHES_BEFORE_SHORT_SEARCH` batches of several parts have raised in a row, the model itself
counts as broken: until a batch runs well, only the two halves of a batch are tried.

**Lost workers.** A batch whose run had not begun runs again, as often as that happens. A batch
whose run had begun may have done something already: it runs again only if the settings allow that
(`retry`), and once.

**The turn of reruns.** Reruns and fresh batches alternate, so that the requests of other clients do
not wait behind a search. If fresh batches fail faster than searches end, searches go first, the
oldest before all: what waits here is not bounded by the queue and must not grow without end.

Source: group testing by halves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from batcher.batching.batch import Batch
from batcher.batching.ceiling import Ceiling
from batcher.batching.part import Part
from batcher.batching.poison import PoisonList
from batcher.batching.policies.policy import FULL
from batcher.errors import DeviceLost, OutOfMemory, WorkerLost

ISOLATE = "isolate"
"""The flush reason of a half of a batch that raised."""

RETRY = "retry"
"""The flush reason of a batch whose worker ended before the batch did."""

MEMORY = "memory"
"""The flush reason of a half of a batch that did not fit into the device's memory."""

RERUN_REASONS = (ISOLATE, RETRY, MEMORY)

FAILED_BATCHES_BEFORE_SHORT_SEARCH = 20
"""Batches of several parts that raise one after the other until the model counts as broken.

One whole search among 64 parts has 14 such batches if every part raises, so a broken model is found
out in the second search. With one bad part in each batch the count never gets so far, because every
other half runs well and sets the count back to zero.
"""

SEARCHES_BESIDE_FRESH_BATCHES = 2
"""Searches up to which fresh batches still take every other turn."""


class Search:
    """The reruns of one batch: the pieces that wait, the pieces that run, and what is known so far.

    The state follows from three attributes:

        state      runs  found_good  what happens to `waiting`
        searching  > 0   no          pieces run; each piece of a batch that raised costs one run
        exhausted  0     no          pieces wait for the batches that still run: if one of those
                                     ends well, the state is `proven`; if the last of them raises,
                                     all pieces fail. With none running, the first piece runs.
        proven     any   yes         pieces run until each bad part has stood alone
        over       any   any         empty, and `running` is 0: `Reruns` forgets the search

    A first piece that is a `retry` or a `memory` rerun may run in every state and costs nothing.

    Attributes:
        runs: runs left until one piece has to run well.
        interruptions: runs left for batches whose worker ended after their run had begun.
        ceiling_rows: rows that a batch was allowed when the first batch failed.
        found_good: whether one piece has run well.
        waiting: pieces that wait for a run, each with its flush reason, the next one first.
        running: batches of this search that workers hold.
    """

    __slots__ = ("ceiling_rows", "found_good", "interruptions", "running", "runs", "waiting")

    def __init__(self, runs: int, interruptions: int, ceiling_rows: int) -> None:
        """Start with no piece."""
        self.runs = runs
        self.interruptions = interruptions
        self.ceiling_rows = ceiling_rows
        self.found_good = False
        self.waiting: deque[tuple[Sequence[Part], str]] = deque()
        self.running = 0

    @property
    def can_go_on(self) -> bool:
        """Whether the first piece that waits may run."""
        return bool(self.waiting) and (
            self.runs > 0 or self.found_good or self.waiting[0][1] != ISOLATE
        )


class Reruns:
    """All searches of one scheduler, the oldest first. Reactor thread."""

    def __init__(
        self, ceiling: Ceiling, poison_list: PoisonList, isolate: bool, retry: bool = False
    ) -> None:
        """Report what batches show to `ceiling` and `poison_list`.

        Args:
            ceiling: learns which sizes of batches fit into memory.
            poison_list: learns which requests fail alone.
            isolate: whether a batch that raised is halved.
            retry: whether a batch runs once more if its worker ended after its run had begun.
        """
        self._ceiling = ceiling
        self._poison_list = poison_list
        self._isolate = isolate
        self._failed_in_a_row = 0  # batches of several parts that raised, since one ran well
        self._interruptions = int(retry)
        # a dict, as an ordered set: the oldest search is served first
        self._searches: dict[Search, None] = {}
        self._running: dict[Batch, Search] = {}
        self._waiting = 0

    def __len__(self) -> int:
        """How many pieces wait."""
        return self._waiting

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parts that wait."""
        return (part for search in self._searches for parts, _ in search.waiting for part in parts)

    @property
    def come_first(self) -> bool:
        """Whether there are so many searches that fresh batches wait for them."""
        return len(self._searches) > SEARCHES_BESIDE_FRESH_BATCHES

    def note_failure(
        self,
        batch: Batch,
        error: BaseException,
        halve: Callable[[Part], Sequence[Part]],
        now: float,
        worth_a_run: bool = True,
    ) -> Sequence[Part]:
        """Keep the parts of `batch`, which failed with `error`, for another run, if that may help.

        Return the parts that fail with `error` now: none, all of `batch`, or these and all that its
        search still had waiting. `halve` cuts a part of several rows in two, for a part that alone
        is too large. `worth_a_run` is False if no worker will run anything.
        """
        search = self._running.pop(batch, None)
        if search is None:
            search = Search(self._budget(len(batch.parts)), self._interruptions, self._ceiling.rows)
        else:
            search.running -= 1
        runs_again = worth_a_run and self._plan(search, batch, error, halve, now)
        failed = [] if runs_again else list(batch.parts)
        if not search.running and not search.can_go_on:
            failed += self._empty(search)
        self._keep_or_forget(search)
        return failed

    def note_success(self, batch: Batch) -> None:
        """Learn from `batch`, fresh or a rerun, which ran well."""
        self._failed_in_a_row = 0
        self._ceiling.note_fit(batch.rows, batch.reason == FULL)
        search = self._running.pop(batch, None)
        if search is not None:
            search.running -= 1
            search.found_good = True
            self._keep_or_forget(search)

    def next_batch(self, is_alive: Callable[[Part], bool], now: float) -> Batch | None:
        """Return the next piece as a batch bound `now`, without parts that are not alive, or None.

        The oldest search that can go on has the turn.
        """
        for search in list(self._searches):
            # an exhausted search whose running batches are all gone has none left to wait for
            while search.can_go_on or (search.waiting and not search.running):
                parts, reason = search.waiting.popleft()
                self._waiting -= 1
                alive = [part for part in parts if is_alive(part)]
                if alive:
                    return self._started(search, Batch(alive, reason, now))
            self._keep_or_forget(search)
        return None

    def _started(self, search: Search, batch: Batch) -> Batch:
        self._running[batch] = search
        search.running += 1
        search.runs -= batch.reason == ISOLATE
        return batch

    def _empty(self, search: Search) -> list[Part]:
        """Take all that waits out of `search`, and return the parts."""
        left = [part for parts, _ in search.waiting for part in parts]
        self._waiting -= len(search.waiting)
        search.waiting.clear()
        return left

    def _keep_or_forget(self, search: Search) -> None:
        if search.waiting or search.running:
            self._searches[search] = None
        else:
            self._searches.pop(search, None)

    def _plan(
        self,
        search: Search,
        batch: Batch,
        error: BaseException,
        halve: Callable[[Part], Sequence[Part]],
        now: float,
    ) -> bool:
        """Let the pieces of `batch` wait as `error` asks for; return whether there are any."""
        if isinstance(error, OutOfMemory):
            return self._shrink(batch, search, halve)
        lost = isinstance(error, WorkerLost)
        begun = not isinstance(error, WorkerLost) or error.begun
        # a lone part that ran and failed, or that ended its worker, is at fault itself
        if len(batch.parts) == 1 and begun:
            self._poison_list.note_failure(batch.parts[0], now)
        if lost:
            return self._retry(batch, search, begun)
        return not isinstance(error, DeviceLost) and self._halve(batch, search)

    def _budget(self, parts: int) -> int:
        """Return in how many reruns one of `parts` parts has to run well.

        The first run, which has failed already, is not among them.
        """
        broken = self._failed_in_a_row >= FAILED_BATCHES_BEFORE_SHORT_SEARCH
        return 2 if broken else 2 * (parts - 1).bit_length() + 1

    def _shrink(
        self, batch: Batch, search: Search, halve: Callable[[Part], Sequence[Part]]
    ) -> bool:
        if batch.rows == 1:
            self._ceiling.note_row_overflow(search.ceiling_rows)
            return False
        self._ceiling.note_overflow(batch.rows)
        parts = batch.parts if len(batch.parts) > 1 else halve(batch.parts[0])
        if len(parts) > 1:
            search.waiting.extendleft(reversed(self._halves(parts, MEMORY)))
        return len(parts) > 1

    def _retry(self, batch: Batch, search: Search, begun: bool) -> bool:
        if begun:
            if not search.interruptions:
                return False
            search.interruptions -= 1
        search.waiting.appendleft((batch.parts, RETRY))
        self._waiting += 1
        return True

    def _halve(self, batch: Batch, search: Search) -> bool:
        # only batches of several parts count: one bad part that comes again and again says nothing
        # about the model
        self._failed_in_a_row += len(batch.parts) > 1
        if not self._isolate or len(batch.parts) == 1:
            return False
        search.waiting.extend(self._halves(batch.parts, ISOLATE))
        return True

    def _halves(self, parts: Sequence[Part], reason: str) -> list[tuple[Sequence[Part], str]]:
        self._waiting += 2
        middle = len(parts) // 2
        return [(parts[:middle], reason), (parts[middle:], reason)]
