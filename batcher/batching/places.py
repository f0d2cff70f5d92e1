"""Which batches each worker of a model holds, and which worker takes the next one.

A worker holds one batch that runs, and behind that batch others up to `depth` in all. The next
batch goes to the worker that holds the fewest, so each instance of a model takes from the one queue
when it is free. A worker that is not alive takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from math import inf

from batcher.batching.batch import Batch

Estimate = Callable[[int, Hashable], float]
"""Seconds that a batch of so many rows of a shape takes."""


class Place:
    """The batches of one worker.

    Attributes:
        batches: batches that the worker holds; the first one runs.
        began: time in seconds at which the first one began.
        alive: whether the worker takes batches.
    """

    __slots__ = ("alive", "batches", "began")

    def __init__(self) -> None:
        """Start alive and empty."""
        self.batches: list[Batch] = []
        self.began = 0.0
        self.alive = True

    def left(self, seconds: Estimate, now: float) -> float:
        """Return in how many seconds the worker will have run all its batches."""
        if not self.batches:
            return 0.0
        left = [seconds(batch.rows, batch.group) for batch in self.batches]
        left[0] = max(left[0] - (now - self.began), 0.0)
        return sum(left)


class Places:
    """The places for batches at all workers of a model. Time is an argument. Reactor thread.

    Attributes:
        depth: batches that one worker may hold.
        rows: rows of all batches that workers hold.
        alive: number of workers that take batches.
    """

    def __init__(self, workers: int = 1, depth: int = 2) -> None:
        """Start with so many `workers`, alive and empty."""
        self.depth = depth
        self.rows = 0
        self.alive = workers
        self._places = [Place() for _ in range(workers)]

    def __len__(self) -> int:
        """How many batches all workers hold."""
        count = 0
        for place in self._places:
            count += len(place.batches)
        return count

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches."""
        return (batch for place in self._places for batch in place.batches)

    @property
    def held(self) -> int:
        """Batches of the worker that takes the next one; `depth` if none can take any."""
        held = self.depth
        # a loop, not min() over a generator: asked for with every request
        for place in self._places:
            if place.alive and len(place.batches) < held:
                held = len(place.batches)
        return held

    def free_and_latest(self) -> tuple[int, float]:
        """Return how many living workers hold no batch, and when a running one began last.

        That is a time in seconds, minus infinity if none runs.
        """
        free, latest = 0, -inf
        for place in self._places:
            if place.batches:
                latest = max(latest, place.began)
            elif place.alive:
                free += 1
        return free, latest

    def set_alive(self, index: int, alive: bool) -> None:
        """Let the worker at `index` take batches, or none."""
        self._places[index].alive = alive
        self.alive = sum(place.alive for place in self._places)

    def put(self, batch: Batch, now: float) -> int:
        """Give `batch` to the worker that holds the fewest; return the index of that worker."""
        index = self._emptiest()
        place = self._places[index]
        if not place.batches:
            place.began = now
        place.batches.append(batch)
        self.rows += batch.rows
        return index

    def remove(self, batch: Batch, now: float) -> float:
        """Take `batch` back; return the time in seconds at which it had begun."""
        for place in self._places:
            if batch in place.batches:
                break
        # the next batch of that worker begins now
        began, place.began = place.began, now
        place.batches.remove(batch)
        self.rows -= batch.rows
        return began

    def left(self, seconds: Estimate, now: float) -> float:
        """Return in how many seconds the first living worker will have run all its batches."""
        return min((place.left(seconds, now) for place in self._places if place.alive), default=inf)

    def check_invariants(self) -> None:
        """Assert that the counters equal what is held; for tests."""
        assert self.rows == sum(batch.rows for batch in self)
        assert self.alive == sum(place.alive for place in self._places)
        assert all(len(place.batches) <= self.depth for place in self._places)

    def _emptiest(self) -> int:
        """Return the index of the living worker that holds the fewest, the first of several."""
        held = self.held
        for index, place in enumerate(self._places):
            if place.alive and len(place.batches) == held:
                return index
        raise RuntimeError("expected a worker that takes batches; none is alive")
