"""The sending side of a connection: what is written goes out at once, or in a burst with what others write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.web.rendering import PREFIX
from batcher.web.transport import Transport

if TYPE_CHECKING:
    from batcher.web.front import Front


MUCH = 1 << 16
"""Bytes that are not gathered any longer: the transport must learn of them, to say when the client does not read."""


class Outgoing:
    """Bytes on their way to one client. Reactor thread."""

    __slots__ = ("_front", "_gathered", "_transport", "prefix_sent")

    def __init__(self, front: Front, transport: Transport) -> None:
        """Send through `transport`, in the bursts of `front`."""
        self._front = front
        self._transport = transport
        self._gathered = b""
        self.prefix_sent = False

    def write(self, data: bytes) -> None:
        """Send `data`, less the prefix of answers if that is out already."""
        if self.prefix_sent:
            data, self.prefix_sent = data[len(PREFIX) :], False
        outbox = self._front.outbox
        if outbox is None:
            self._transport.write(data)
        elif self._gathered:
            self._gathered += data
        else:
            self._gathered = data
            outbox.append(self)
        if len(self._gathered) > MUCH:
            self.flush()

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

    def abort(self) -> None:
        """Cut the client off."""
        self.drop()
        self._transport.abort()

    def drop(self) -> None:
        """Forget what was gathered: the client is gone."""
        self._gathered = b""
