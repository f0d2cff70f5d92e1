"""What each worker of a model holds: one batch that runs, and up to `depth` in all.

Which of them takes the next one.

The worker that holds least takes it, so that every instance pulls from one queue when it is free.
One that does not live takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from math import inf

from batcher.batching.batch import Batch

Estimate = Callable[[int, Hashable], float]
"""Seconds that a batch of so many rows of a shape takes."""


class Place:
    """One worker.

    Attributes:
        batches: what it holds, the one that runs first.
        began: when that one began, in seconds.
        alive: whether it takes batches.
    """

    __slots__ = ("alive", "batches", "began")

    def __init__(self) -> None:
        """Start alive, with nothing."""
        self.batches: list[Batch] = []
        self.began = 0.0
        self.alive = True

    def left(self, seconds: Estimate, now: float) -> float:
        """Return in how many seconds it will have done all that it holds."""
        if not self.batches:
            return 0.0
        left = [seconds(batch.rows, batch.parts[0].group) for batch in self.batches]
        left[0] = max(left[0] - (now - self.began), 0.0)
        return sum(left)


class Places:
    """All workers of a model. Time is an argument.

    Attributes:
        depth: batches that a worker may hold.
        rows: rows of all batches that are held.
        alive: workers that take batches.
    """

    def __init__(self, workers: int = 1, depth: int = 2) -> None:
        """Start with `workers`, alive and empty."""
        self.depth = depth
        self.rows = 0
        self.alive = workers
        self._places = [Place() for _ in range(workers)]

    def __len__(self) -> int:
        """How many batches are held."""
        count = 0
        for place in self._places:
            count += len(place.batches)
        return count

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches."""
        return (batch for place in self._places for batch in place.batches)

    @property
    def held(self) -> int:
        """Batches that the worker holds which would take the next one.

        `depth` if none takes any.
        """
        held = self.depth
        for place in self._places:
            if place.alive and len(place.batches) < held:
                held = len(place.batches)
        return held

    def set_alive(self, index: int, alive: bool) -> None:
        """Have the worker at `index` take batches, or none."""
        self._places[index].alive = alive
        self.alive = sum(place.alive for place in self._places)

    def put(self, batch: Batch, now: float) -> int:
        """Give `batch` to the worker that holds least, and return its index."""
        index = self._freest()
        place = self._places[index]
        if not place.batches:
            place.began = now
        place.batches.append(batch)
        self.rows += batch.rows
        return index

    def remove(self, batch: Batch, now: float) -> float:
        """Take `batch` back; return when it had begun."""
        for place in self._places:
            if batch in place.batches:
                break
        began, place.began = place.began, now
        place.batches.remove(batch)
        self.rows -= batch.rows
        return began

    def left(self, seconds: Estimate, now: float) -> float:
        """Return in how many seconds the first worker will have done all that it holds."""
        return min((place.left(seconds, now) for place in self._places if place.alive), default=inf)

    def check_invariants(self) -> None:
        """Assert that the counters equal what is held; for tests."""
        assert self.rows == sum(batch.rows for batch in self)
        assert self.alive == sum(place.alive for place in self._places)
        assert all(len(place.batches) <= self.depth for place in self._places)

    def _freest(self) -> int:
        """Return the index of the living worker that holds least, the first of several."""
        held = self.held
        for index, place in enumerate(self._places):
            if place.alive and len(place.batches) == held:
                return index
        raise RuntimeError("expected a worker that takes batches; none is alive")
