"""The sending side of a connection, and how the connection ends.

Bytes go out at once, or within a burst together with the bytes of other connections.
"""

from __future__ import annotations

from batcher.frontends.web.http11.rendering import PREFIX
from batcher.frontends.web.shared import BurstSender, Shared
from batcher.frontends.web.transport import Transport

MAX_GATHERED_BYTES = 1 << 16
"""Bytes that a burst gathers for one connection. More goes to the transport at once, which has to
know of many bytes to notice that a client does not read.
"""

LINGER_S = 2.0
"""Seconds that a refused client may go on sending into the void: so the client reads the answer
before a reset. A TLS client has as long to say its last word; many never do, since their kept
connections lie in a pool.
"""


class Outgoing(BurstSender):
    """Bytes on their way to one client. Reactor thread.

    Attributes:
        blocked: whether the client reads too slowly for more to be produced.
        closing: whether nothing can be written any more.
        lingering: whether everything is written, and the client may still send.
        early: bytes of answers whose turn has not come.
        unsent: bytes that the client had still to read at the last look.
        since: when the present wait for the client to read, or to go, began, in seconds.
        prefix_sent: whether the first bytes of the next answer are out already.
    """

    __slots__ = (
        "_front",
        "_gathered",
        "_transport",
        "blocked",
        "closing",
        "early",
        "lingering",
        "prefix_sent",
        "since",
        "unsent",
    )

    def __init__(self, front: Shared, transport: Transport) -> None:
        """Send through `transport`, in the bursts of `front`."""
        self._front = front
        self._transport = transport
        self._gathered = b""
        self.blocked = self.closing = self.lingering = self.prefix_sent = False
        self.early = self.unsent = 0
        self.since = 0.0

    def write(self, data: bytes) -> None:
        """Send `data`, less the prefix of answers if that is out already."""
        if self.closing:
            return
        if self.prefix_sent:
            data, self.prefix_sent = data[len(PREFIX) :], False
        if self.blocked:
            self.unsent += len(data)
        outbox = self._front.outbox
        if outbox is None:
            self._transport.write(data)
        elif self._gathered:
            self._gathered += data
        else:
            self._gathered = data
            outbox.append(self)
        if len(self._gathered) > MAX_GATHERED_BYTES:
            self.flush()

    def write_view(self, data: memoryview) -> None:
        """Send `data`, which the transport holds, and does not copy, until the client reads it."""
        if self.closing:
            return
        if self.blocked:
            self.unsent += len(data)
        self.flush()
        self._transport.write(data)

    def send_prefix(self) -> None:
        """Send what the next answer begins with ahead of it."""
        if not self.prefix_sent:
            self._transport.write(PREFIX)
            self.prefix_sent = True

    def flush(self) -> None:
        """Send what was gathered for a burst."""
        data, self._gathered = self._gathered, b""
        if data:
            self._transport.write(data)

    def block(self, blocked: bool) -> None:
        """Note whether the client reads too slowly for more to be produced."""
        self.blocked = blocked
        self.unsent, self.since = self._transport.get_write_buffer_size(), self._front.seconds()

    def look(self, now: float) -> None:
        """See what the client has read since the last look."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self.unsent:
            self.unsent, self.since = unsent, now  # it reads, however slowly

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn to read, or to go."""
        return self.closing or self.blocked or self.lingering

    def is_overdue(self, now: float) -> bool:
        """Return whether a client whose turn it is has had its time."""
        linger = (self.lingering or self.closing) and not self.unsent
        return now - self.since > (LINGER_S if linger else self._front.limits.write_timeout)

    def end(self, linger: bool) -> None:
        """Close behind what is written.

        With `linger`, and where that can be, the client may go on sending for a while.
        """
        self.since = self._front.seconds()
        self.flush()
        if linger and self._transport.can_write_eof():
            self.lingering = True
            self._transport.write_eof()
        else:
            self.closing = True
            self._transport.close()

    def abort(self) -> None:
        """Cut the client off."""
        self.drop()
        self._transport.abort()

    def drop(self) -> None:
        """Forget everything: the client is gone."""
        self.closing = True
        self._gathered = b""
        self.early = self.unsent = 0
