"""Which request's deadline comes next.

A heap cannot drop an entry from its middle, and most requests are answered long before their deadline. Entries of finished
requests are therefore left where they are and counted; once they are the majority the heap is built anew, so that it never
holds more than twice what is alive and each request costs constant time on average. A timer per request was refused: the
event loop would keep tens of thousands of them.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar


class _Finishing(Protocol):
    @property
    def finished(self) -> bool:
        """Whether it has been answered."""


Item = TypeVar("Item", bound=_Finishing)

_SLACK = 64
"""Finished entries that are tolerated beyond the living, so that small heaps are not rebuilt all the time."""


class Deadlines(Generic[Item]):
    """Items by deadline. An item is dropped by marking it finished and telling `forget`."""

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, Item]] = []
        self._order = count()
        self._finished = 0

    def __len__(self) -> int:
        """How many items are alive."""
        return len(self._heap) - self._finished

    def add(self, deadline: float, item: Item) -> None:
        """Watch `item` until `deadline`, in seconds."""
        heappush(self._heap, (deadline, next(self._order), item))

    def forget(self) -> None:
        """Count one item that is now finished."""
        self._finished += 1
        if self._finished > len(self._heap) // 2 + _SLACK:
            self._heap = [entry for entry in self._heap if not entry[2].finished]
            heapify(self._heap)
            self._finished = 0

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of an item that is alive, None if there is none."""
        while self._heap and self._heap[0][2].finished:
            heappop(self._heap)
            self._finished -= 1
        return self._heap[0][0] if self._heap else None

    def pop_expired(self, now: float) -> Item | None:
        """Return and drop one item alive whose deadline is at or before `now`, None if there is none.

        The caller marks it finished before it asks again, and does not tell `forget`.
        """
        deadline = self.next_deadline()
        return heappop(self._heap)[2] if deadline is not None and deadline <= now else None
