"""Work of many clients that waits for few workers: each client gets its fair share of them.

One client may send a thousand large pictures at once. The clients beside that one still get in, and
their work begins as soon as a worker is free. Two rules see to that:

- **Who is served next.** Of the clients whose work waits, the one with the fewest running items is
  next; among equals, the one whose items have taken the least time. So n busy clients get one n-th
  of the time each, whether their items are few and long or many and short. Within a client the
  order of arrival holds.
- **Who gets in.** A client may hold at most three times what is still free. Alone it may hold
  three quarters of the bounds, and two such clients hold three sevenths each: something is always
  left for the next client. With 1024 items, a client alone may hold 768.

| item | `put` | `take` | `remove` | `done` |
|---|---|---|---|---|
| waits | | runs | is gone | |
| runs | | | stays | is gone |

Round robin over items was refused: a client whose items take a second each would get nearly all the
time beside one whose items take a millisecond.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from batcher.errors import QueueFull

SHARE_OF_FREE = 3
"""How many times as much as is free one client may hold.

With 256 MiB, one client fills at most 192 MiB, and leaves room for a whole body of 64 MiB.
"""


class Item(Protocol):
    """What waits; each item is an object of its own.

    Attributes:
        client: whose item it is; empty for all clients that nobody can tell apart.
        nbytes: bytes that the item holds on to.
    """

    @property
    def client(self) -> str:
        """Whose item it is."""

    @property
    def nbytes(self) -> int:
        """Bytes that the item holds on to."""


AnyItem = TypeVar("AnyItem", bound=Item)


class _Share(Generic[AnyItem]):
    """What one client has in the queue.

    Attributes:
        waiting: its items that wait, in the order of arrival.
        items: its items that wait or run.
        nbytes: bytes of those items.
        used: seconds that its items have taken, and the seconds with which the client began.
    """

    __slots__ = ("items", "nbytes", "used", "waiting")

    def __init__(self, used: float) -> None:
        """Begin with no items."""
        self.waiting: OrderedDict[AnyItem, None] = OrderedDict()
        self.items = 0
        self.nbytes = 0
        self.used = used

    def turn(self) -> tuple[int, float]:
        """Return the client's place among those that wait; the least is served next."""
        return self.items - len(self.waiting), self.used


class FairQueue(Generic[AnyItem]):
    """Holds items that wait for a worker or run on one. Not safe between threads by itself.

    Attributes:
        items: items that wait or run.
        waiting: items that wait.
        nbytes: bytes of those items that wait or run.
        peak: the most that `nbytes` was since `peak` was last set.

    Args:
        name: what the queue is called in errors, such as `the CPU pool`.
        max_items: most items that wait or run.
        max_bytes: most bytes of those items.
    """

    def __init__(self, name: str, max_items: int, max_bytes: int) -> None:
        """Begin without items."""
        self._name = name
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._shares: dict[str, _Share[AnyItem]] = {}
        self._in_line: dict[str, _Share[AnyItem]] = {}
        # The seconds that the client served last has used: where clients begin that come anew.
        self._served_until = 0.0
        self.items = 0
        self.waiting = 0
        self.nbytes = 0
        self.peak = 0

    def put(self, item: AnyItem) -> None:
        """Let `item` wait.

        Raises:
            QueueFull: there is no room, or the client holds its share already.
        """
        client = item.client
        share = self._shares.get(client)
        self._check_room(share, item.nbytes)
        if share is None:
            # A client that comes later has not saved up the time before, and owes none of it.
            share = self._shares[client] = _Share(self._served_until)
        share.waiting[item] = None
        self._in_line[client] = share
        self.waiting += 1
        self._count(share, 1, item.nbytes)
        self.peak = max(self.peak, self.nbytes)

    def take(self) -> AnyItem | None:
        """Return the item that is to run now; None if none waits."""
        if not self._in_line:
            return None
        client, share = min(self._in_line.items(), key=lambda entry: entry[1].turn())
        item, _ = share.waiting.popitem(last=False)
        self.waiting -= 1
        if not share.waiting:
            del self._in_line[client]
        self._served_until = max(self._served_until, share.used)
        return item

    def remove(self, item: AnyItem) -> bool:
        """Drop `item` if it waits, and return whether it did."""
        share = self._in_line.get(item.client)
        if share is None or item not in share.waiting:
            return False
        del share.waiting[item]
        self.waiting -= 1
        if not share.waiting:
            del self._in_line[item.client]
        self._leave(share, item)
        return True

    def done(self, item: AnyItem, seconds: float) -> None:
        """Note that `item`, which was taken, has run for `seconds`."""
        share = self._shares[item.client]
        share.used += seconds
        self._leave(share, item)

    def _check_room(self, share: _Share[AnyItem] | None, nbytes: int) -> None:
        free, free_bytes = self._max_items - self.items, self._max_bytes - self.nbytes
        # A queue without items takes one of any size, or that one could never run.
        if free < 1 or (self.items and nbytes > free_bytes):
            raise QueueFull(
                f"{self._name} is full: {self.items} of {self._max_items} tasks, {self.nbytes} of "
                f"{self._max_bytes} bytes"
            )
        if share is not None and (
            share.items >= SHARE_OF_FREE * free
            or share.nbytes + nbytes > SHARE_OF_FREE * free_bytes
        ):
            raise QueueFull(
                f"{self._name} is full for this client, which has {share.items} tasks and "
                f"{share.nbytes} bytes there; {free} tasks and {free_bytes} bytes are kept for "
                "others"
            )

    def _count(self, share: _Share[AnyItem], items: int, nbytes: int) -> None:
        share.items += items
        share.nbytes += nbytes
        self.items += items
        self.nbytes += nbytes

    def _leave(self, share: _Share[AnyItem], item: AnyItem) -> None:
        self._count(share, -1, -item.nbytes)
        # Clients that have nothing here leave nothing behind: their number has no bound.
        if not share.items:
            del self._shares[item.client]
