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
from collections.abc import Hashable
from typing import Generic, TypeVar

from batcher.errors import QueueFull

Item = TypeVar("Item", bound=Hashable)

SHARE_OF_FREE = 3
"""How many times as much as is free one client may hold.

With 256 MiB, one client fills at most 192 MiB, and leaves room for a whole body of 64 MiB.
"""


class _Share(Generic[Item]):
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
        self.waiting: OrderedDict[Item, None] = OrderedDict()
        self.items = 0
        self.nbytes = 0
        self.used = used

    def turn(self) -> tuple[int, float]:
        """Return the client's place among those that wait; the least is served next."""
        return self.items - len(self.waiting), self.used


class FairQueue(Generic[Item]):
    """Holds items that wait for a worker or run on one. Not safe between threads by itself.

    Attributes:
        items: items that wait or run.
        nbytes: bytes of those items.

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
        self._clients: dict[str, _Share[Item]] = {}
        self._waiting: dict[str, _Share[Item]] = {}
        self._held: dict[Item, tuple[str, int]] = {}
        # The seconds that the client served last has used: where clients begin that come anew.
        self._served_until = 0.0
        self.items = 0
        self.nbytes = 0

    def __len__(self) -> int:
        """How many items wait."""
        return sum(len(share.waiting) for share in self._waiting.values())

    def put(self, client: str, nbytes: int, item: Item) -> None:
        """Let `item` of `client`, which holds on to `nbytes` bytes, wait.

        Raises:
            QueueFull: there is no room, or the client holds its share already.
        """
        self.check_room(client, nbytes)
        share = self._clients.get(client)
        if share is None:
            # A client that comes later has not saved up the time before, and owes none of it.
            share = self._clients[client] = _Share(self._served_until)
        share.waiting[item] = None
        share.items += 1
        share.nbytes += nbytes
        self._waiting[client] = share
        self._held[item] = client, nbytes
        self.items += 1
        self.nbytes += nbytes

    def check_room(self, client: str, nbytes: int) -> None:
        """Raise QueueFull if `put` would."""
        free, free_bytes = self._max_items - self.items, self._max_bytes - self.nbytes
        # A queue without items takes one of any size, or that one could never run.
        if free < 1 or (self.items and nbytes > free_bytes):
            raise QueueFull(
                f"{self._name} is full: {self.items} of {self._max_items} tasks, {self.nbytes} of "
                f"{self._max_bytes} bytes"
            )
        share = self._clients.get(client)
        if share is not None and (
            share.items >= SHARE_OF_FREE * free
            or share.nbytes + nbytes > SHARE_OF_FREE * free_bytes
        ):
            raise QueueFull(
                f"{self._name} has its share for one client: {share.items} tasks and "
                f"{share.nbytes} bytes are this client's; {free} tasks and {free_bytes} bytes are "
                "kept for others"
            )

    def take(self) -> Item | None:
        """Return the item that is to run now; None if none waits."""
        if not self._waiting:
            return None
        client, share = min(self._waiting.items(), key=lambda entry: entry[1].turn())
        item, _ = share.waiting.popitem(last=False)
        if not share.waiting:
            del self._waiting[client]
        self._served_until = max(self._served_until, share.used)
        return item

    def remove(self, item: Item) -> bool:
        """Drop `item` if it waits, and return whether it did."""
        client, _ = self._held.get(item, ("", 0))
        share = self._waiting.get(client)
        if share is None or item not in share.waiting:
            return False
        del share.waiting[item]
        if not share.waiting:
            del self._waiting[client]
        self._forget(item)
        return True

    def done(self, item: Item, seconds: float) -> None:
        """Note that `item`, which was taken, has run for `seconds`."""
        client, _ = self._held[item]
        self._clients[client].used += seconds
        self._forget(item)

    def _forget(self, item: Item) -> None:
        client, nbytes = self._held.pop(item)
        share = self._clients[client]
        share.items -= 1
        share.nbytes -= nbytes
        self.items -= 1
        self.nbytes -= nbytes
        # Clients that have nothing here leave nothing behind: their number has no bound.
        if not share.items:
            del self._clients[client]
