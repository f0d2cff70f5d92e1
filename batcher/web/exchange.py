"""One request on its connection, from its place in the order of answers to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from batcher.endpoints.call import Reply
from batcher.web.reader import Refusal, Request
from batcher.web.rendering import render

if TYPE_CHECKING:
    from batcher.web.connection import Connection
    from batcher.web.klein_channel import KleinChannel


class Exchange:
    """One request and its place in the order of answers. Reactor thread."""

    __slots__ = ("_connection", "channel", "closes", "deferred", "done", "held", "request")

    def __init__(self, connection: Connection, request: Request | Refusal) -> None:
        """Take the last place in `connection`."""
        self._connection = connection
        self.request = request
        self.held: list[bytes] = []
        self.done = False
        self.closes = False  # whether the connection ends with this answer, which then says so
        self.deferred: Deferred[None] | None = None
        self.channel: KleinChannel | None = None

    def write(self, data: bytes) -> None:
        """Send `data` if it is this exchange's turn, else hold it back."""
        if self._connection.turn is self:
            self._connection.write(data)
        else:
            self.held.append(data)

    def finish(self) -> None:
        """The answer is complete."""
        self.done = True
        self._connection.advance()

    def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        self.write(render(reply, self._connection.connection_header(self)))
        self.finish()

    def give_up(self) -> None:
        """The client is gone: whatever still works on the request is told."""
        self.done = True
        if self.deferred is not None:
            self.deferred.cancel()
        if self.channel is not None:
            self.channel.connection_lost(Failure(ConnectionDone("the client left")))
