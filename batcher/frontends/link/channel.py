"""One end of the connection between a front process and the engine.

Messages gather until the loop's turn is over and leave together, with one system call. So the
other process is woken once for all that one turn has to say, however many requests that are. Small
requests, and small answers, even share a message (`gathering.py`).

The channel is written against two methods of an asyncio transport, `write` and
`get_write_buffer_size`, and is the protocol of that transport.
"""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from typing import Any, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.frontends.link.frames import FrameReader, Message, frame_of
from batcher.frontends.link.gathering import Gathered
from batcher.frontends.link.messages import BACK, UNSENT
from batcher.frontends.link.models import CallSoon
from batcher.workers.shared_memory.region import Lender, Reader

_log = Logger()


class Peer(Protocol):
    """Whoever hears what comes through a channel. Reactor thread."""

    def take(self, message: Message) -> None:
        """Hear one message."""

    def lost(self) -> None:
        """Hear that the other process is gone; called once."""


class _Nobody:
    """Hears nothing: the other process is gone."""

    def take(self, message: Message) -> None:
        """Forget `message`."""

    def lost(self) -> None:
        """Know that already."""


class Channel:
    """Sends and receives messages, and has both regions of shared memory. Reactor thread.

    Attributes:
        lender: memory for what this end sends.
        reader: memory with what the other end has sent.
        peer: hears what comes; to be set before anything can come.
        burst: calls a function; what all messages that came together make this process send
            leaves together.
    """

    peer: Peer

    def __init__(
        self,
        outgoing: mmap,
        incoming: mmap,
        call_soon: CallSoon,
        burst: Callable[..., None] | None = None,
    ) -> None:
        """Send large arrays through `outgoing`, and read those of the other end in `incoming`."""
        self.lender, self.reader = Lender(outgoing), Reader(incoming)
        self.burst = burst or _call
        self._call_soon = call_soon
        self._frames = FrameReader()
        self._waiting: list[bytes | Gathered] = []
        self._transport: Any = None
        self._open = True

    def send(self, message: Message) -> None:
        """Send `message` at the end of the turn; forget it if the other process is gone.

        Raises ValueError: the message has a value that is not plain.
        """
        if not self._open:
            return
        self._wait(frame_of(message))  # at once: whose message it is hears of an error

    def gather(self, gathered: Gathered) -> None:
        """Send `gathered` at the end of the turn, with all that is added until then."""
        if self._open:
            gathered.is_open = True
            self._wait(gathered)

    def flush(self) -> None:
        """Send what waits now."""
        if not self._waiting or self._transport is None or not self._open:
            return
        if gone := self.reader.take_gone():
            self._waiting.append(frame_of((BACK, gone)))
        waiting, self._waiting = self._waiting, []
        frames = [each if isinstance(each, bytes) else self._frame_of(each) for each in waiting]
        self._transport.write(b"".join(frames))

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait here until the other process reads them."""
        found: int = self._transport.get_write_buffer_size()
        return found

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Have the peer hear each message in `data`."""
        if messages := self._frames.feed(data):
            self.burst(self._take_all, messages)

    def eof_received(self) -> bool:
        """Return that the connection ends: the other process is gone."""
        return False

    def connection_lost(self, reason: object) -> None:
        """Tell the peer that the other process is gone."""
        if self._open:
            self._open = False
            for each in self._waiting:
                if isinstance(each, Gathered):
                    each.is_open = False
            self._waiting.clear()
            # A cycle would keep both regions of memory until the collector looks, hours later.
            peer, self.peer = self.peer, _Nobody()
            self._transport = None
            peer.lost()

    def pause_writing(self) -> None:
        """Go on: whoever sends looks at `unread_bytes`, or sends answers that a front waits for."""

    def resume_writing(self) -> None:
        """Go on."""

    def _wait(self, frame: bytes | Gathered) -> None:
        if not self._waiting:
            self._call_soon(self.flush)
        self._waiting.append(frame)

    def _frame_of(self, gathered: Gathered) -> bytes:
        gathered.is_open = False
        try:
            return frame_of(gathered.message(self.lender))
        except Exception:  # whatever it is, no request must wait for ever
            self.peer.take((UNSENT, gathered.numbers, Failure()))
            return b""

    def _take_all(self, messages: list[Message]) -> None:
        for message in messages:
            if message[0] == BACK:
                for offset in message[1]:
                    self.lender.free(offset)
                continue
            try:
                self.peer.take(message)
            except Exception:  # one request must not silence the others
                _log.failure("a message between front and engine could not be heard")


def _call(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)
