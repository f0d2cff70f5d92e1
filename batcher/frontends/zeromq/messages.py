"""Parts of the ROUTER socket become messages.

A message comes as the client's identity, which the library puts before each message, a header, and
any number of parts behind the header. The library bounds the bytes of one part, and neither the
number of parts nor their bytes together. So parts are taken a few at a time, from turn to turn of
the loop, and those of a message that is too large are let go of as they come.

What may stay in the library's memory: it lends each part that is received without a copy. Large
parts stay there, small ones are copied, since several of them share one block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from batcher.codecs.content import Buffer
from batcher.codecs.zeromq_calls import ID_BYTES
from batcher.frontends.zeromq.peers import Peer, Peers, is_chosen
from batcher.frontends.zeromq.request import SMALL_BYTES, Known

MAX_PARTS: Final = 256
"""Parts behind the header: a model with more inputs has none of them as parts of its own."""


class Port(Protocol):
    """Receives parts."""

    def receive_identity(self) -> bytes | None:
        """Return the first part of the next message, who has sent it; None if none is there."""

    def receive(self, copied: bool) -> tuple[Buffer, bool]:
        """Return the next part of a message that has begun, and whether more follow.

        A part that is not copied stays in the library's memory.
        """

    def receive_with_origin(self) -> tuple[Buffer, bool, tuple[int, str]]:
        """Return the next part, not copied, whether more follow, and what socket it came from.

        Of that socket the descriptor, and its client's address of IP.
        """


class Incoming(NamedTuple):
    """A whole message.

    Attributes:
        peer: who has sent it.
        header: the id and what stands behind it; its first bytes alone where it is too long.
        known: what the header says, if it came before.
        parts: what stands behind the header; none where that is too much.
        nbytes: bytes of the whole.
        excess: what there is too much of; empty where all is within its bounds.
    """

    peer: Peer
    header: bytes
    known: Known | None
    parts: list[Buffer]
    nbytes: int
    excess: str


class Messages:
    """Puts messages together. Reactor thread.

    Attributes:
        max_header_bytes: bytes of a header.
        max_bytes: bytes of a message.
    """

    def __init__(
        self,
        port: Port,
        peers: Peers,
        known: dict[bytes, Known],
        take: Callable[[Incoming], object],
        refuse: Callable[[bytes, bytes], object],
        before_new_peer: Callable[[], object],
    ) -> None:
        """Hand messages to `take`, and identity and header of chosen identities to `refuse`.

        `known` has what headers say that came before; `before_new_peer` notes who has left.
        """
        self.max_header_bytes = 0
        self.max_bytes = 0
        self._port = port
        self._peers = peers
        self._known = known
        self._take = take
        self._refuse = refuse
        self._before_new_peer = before_new_peer
        self._begin()

    def _begin(self) -> None:
        """Expect the first part of a message."""
        self._place = 0  # of the next part: 0 the identity, 1 the header, 2 all others
        self._copied = True  # of all others
        self._peer: Peer | None = None
        self._identity = self._header = b""
        self._found: Known | None = None
        self._parts: list[Buffer] = []
        self._nbytes = 0
        self._excess = ""

    def read(self, most: int) -> bool:
        """Take so many parts at most; return whether no part is left."""
        for _ in range(most):
            if not self._place:
                identity = self._port.receive_identity()
                if identity is None:
                    return True
                self._take_identity(identity)
            elif not (self._take_header() if self._place == 1 else self._take_part()):
                self._end()
        return False

    def _take_identity(self, identity: bytes) -> None:
        self._place = 1
        self._identity = identity
        self._peer = self._peers.get(identity)

    def _take_header(self) -> bool:
        """Return whether parts follow, as `_take_part` does."""
        if self._peer is not None:
            part, more = self._port.receive(True)
        else:
            part, more, origin = self._port.receive_with_origin()
            self._before_new_peer()
            if not is_chosen(self._identity):
                self._peer = self._peers.opened(self._identity, *origin)
        self._place = 2
        self._nbytes = len(part)
        if len(part) > self.max_header_bytes:
            self._excess = "header"
            part = part[:ID_BYTES]
        self._header = bytes(part)
        self._found = self._known.get(self._header[ID_BYTES:])
        self._copied = self._found is not None and self._found.is_small
        return more

    def _take_part(self) -> bool:
        part, more = self._port.receive(self._copied)
        self._nbytes += len(part)
        if self._excess:
            return more
        if self._nbytes > self.max_bytes or len(self._parts) >= MAX_PARTS:
            self._excess = "message"
            self._parts.clear()
            self._copied = False
            return more
        kept = isinstance(part, bytes) or len(part) > SMALL_BYTES
        self._parts.append(part if kept else bytes(part))
        return more

    def _end(self) -> None:
        identity, peer = self._identity, self._peer
        message = self._header, self._found, self._parts, self._nbytes, self._excess
        self._begin()
        if peer is not None:
            self._take(Incoming(peer, *message))
        elif is_chosen(identity):
            self._refuse(identity, message[0])
