"""Which call gets which connection, without any I/O.

There are at most `limit` connections. A call takes the connection that was used last, or a place
for a new one, or a turn: turns are granted in the order in which they were asked for. Each step
takes the same time however many connections, and however many waiting calls, there are.

    connection = pool.idle(now)      an open connection, None without
    pool.has_place()                 True: the caller opens one, and has its place
    pool.wait(turn)                  else: the turn is granted a connection or a place

Whoever has a connection gives the connection back, or gives up its place. A connection that was
not used for `KEEP_ALIVE_S` is let go of. While somebody waits, no connection is idle.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from batcher.client.retrying import KEEP_ALIVE_S

Connection = TypeVar("Connection")


class Turn(Generic[Connection]):
    """A call that waits.

    Attributes:
        is_granted: whether the wait is over.
        connection: what the turn was granted; None for a place, in which to open a connection.
    """

    __slots__ = ("_wake", "connection", "is_granted")

    def __init__(self, wake: Callable[[], object]) -> None:
        """Call `wake` once the turn has come."""
        self._wake = wake
        self.is_granted = False
        self.connection: Connection | None = None

    def grant(self, connection: Connection | None) -> None:
        """End the wait."""
        self.is_granted = True
        self.connection = connection
        self._wake()


class ConnectionPool(Generic[Connection]):
    """The connections of one client, for callers that take turns: it has no lock."""

    __slots__ = ("_close", "_free", "_idle", "_is_passing", "_limit", "_places", "_turns")

    def __init__(self, limit: int, close: Callable[[Connection], object]) -> None:
        """Allow `limit` connections; `close` ends one that is old.

        Raises:
            ValueError: `limit` allows no connection.
        """
        if limit < 1:
            raise ValueError(f"connections: expected 1 or more; got {limit}")
        self._limit = limit
        self._close = close
        self._places = 0
        self._idle: OrderedDict[Connection, float] = OrderedDict()  # to when it was given back
        self._turns: OrderedDict[Turn[Connection], None] = OrderedDict()
        self._free: deque[Connection | None] = deque()
        self._is_passing = False

    def idle(self, now: float) -> Connection | None:
        """Return the connection that was used last, for the caller alone; None without."""
        self._let_go(now)
        return self._idle.popitem()[0] if self._idle else None

    def has_place(self) -> bool:
        """Return whether the caller may open a connection; if so, its place is taken."""
        if self._places >= self._limit:
            return False
        self._places += 1
        return True

    def wait(self, turn: Turn[Connection]) -> None:
        """Grant `turn` the first connection, or place, after those who wait already."""
        self._turns[turn] = None

    def leave(self, turn: Turn[Connection], now: float) -> None:
        """Wait no longer; what `turn` was granted is passed on."""
        if not turn.is_granted:
            self._turns.pop(turn, None)
        elif turn.connection is None:
            self.give_up()
        else:
            self.give_back(turn.connection, now)

    def give_back(self, connection: Connection, now: float) -> None:
        """Pass on a connection that may be used again."""
        if self._turns:
            self._pass_on(connection)
        else:
            self._let_go(now)
            self._idle[connection] = now

    def give_up(self) -> None:
        """Pass on the place of a connection that has ended, or was never made."""
        if self._turns:
            self._pass_on(None)
        else:
            self._places -= 1

    def ended(self, connection: Connection) -> None:
        """Forget a connection that has ended by itself, if it was idle."""
        if self._idle.pop(connection, None) is not None:
            self.give_up()

    def close(self) -> list[Turn[Connection]]:
        """End all idle connections, and return the turns that will never come."""
        while self._idle:
            self._close(self._idle.popitem()[0])
        turns = list(self._turns)
        self._turns.clear()
        return turns

    def _pass_on(self, free: Connection | None) -> None:
        """Grant turns one after the other, also where a call that is woken gives up at once."""
        self._free.append(free)
        if self._is_passing:
            return
        self._is_passing = True
        while self._free and self._turns:
            self._turns.popitem(last=False)[0].grant(self._free.popleft())
        self._is_passing = False
        while self._free:  # nobody waits any more
            connection = self._free.popleft()
            if connection is not None:
                self._close(connection)
            self._places -= 1

    def _let_go(self, now: float) -> None:
        """Close the connections that nobody has used for long."""
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if now - since < KEEP_ALIVE_S:
                return
            del self._idle[connection]
            self._places -= 1
            self._close(connection)
