"""The clients of the ROUTER socket: what each has asked, and what it has not read yet.

The library numbers the connections: an identity is a zero byte and 4 bytes of that number. So one
identity is one connection. Identities that clients choose are refused: a client that comes again
with the same one would get the answers of its former life.

The library closes no connection on our demand, and tells of none whose client does not read. So
everything that a client may make the server hold is bounded here:

| what | at most | beyond it |
|---|---|---|
| requests that are not answered, answers that wait | MAX_PEER_REQUESTS | refused with 503 |
| answers in the library, each below TRACKED_BYTES | PIPE_MESSAGES | the next ones wait here |
| answers in the library from TRACKED_BYTES on | WINDOW_BYTES | the next ones wait here |
| bytes that wait here, of one client | a quarter of `max_buffer_bytes` | a 503 in their place |
| bytes that wait here, of all clients | `max_buffer_bytes` | nothing is sent, and counted |

An answer that waits goes out as soon as the library takes it, in the order of the answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer
from batcher.codecs.joining import LARGE_BYTES
from batcher.codecs.zeromq_calls import ID_BYTES
from batcher.codecs.zeromq_messages import error_header
from batcher.errors import BuffersFull

MAX_PEER_REQUESTS: Final = 1024
"""Requests of one client that are not answered, and answers that wait for it. Batches of 128 rows
stay full by a quarter of that.
"""

PIPE_MESSAGES: Final = 128
"""Answers that the library takes for one client before the client reads: 8 MiB at most."""

RECEIVE_MESSAGES: Final = 256
"""Messages of one client that the library takes before we do; then it reads that client no further.
"""

TRACKED_BYTES: Final = 1 << 16
"""Bytes of an answer from which on the library tells when the answer has gone out."""

WINDOW_BYTES: Final = 8 << 20
"""Bytes of such answers that the library has for one client. A fast client reads as many in some
milliseconds, which is how often we look.
"""

PEER_SHARE: Final = 4
"""One client may have this part of `max_buffer_bytes` wait: some that do not read harm nobody."""

ANSWER_COST_BYTES: Final = 500
"""Bytes that an answer which waits takes besides its own."""

_FULL_TEXT = "expected a client that reads its answers; got one that has {} bytes of them unread"


class Sent(Enum):
    """What the library did with an answer."""

    TAKEN = "taken"
    FULL = "full"
    GONE = "gone"


class Unread(Protocol):
    """An answer that the library has, and may not have written yet."""

    @property
    def done(self) -> bool:
        """Whether it is written, or its client has gone."""


class Send(Protocol):
    """Hands an answer to the library."""

    def __call__(
        self, identity: bytes, parts: list[Buffer], track: bool
    ) -> tuple[Sent, Unread | None]:
        """Hand over all parts or none; with `track`, also what tells when they have gone out."""


class Waiting(NamedTuple):
    """An answer that waits to be handed over.

    Attributes:
        parts: header with its id, and the parts behind it.
        nbytes: what it counts.
        is_large: whether the library tells when it has gone out.
    """

    parts: list[Buffer]
    nbytes: int
    is_large: bool


class Peer:
    """One client.

    Attributes:
        identity: the library's name for the connection.
        descriptor: number of the connection's socket.
        address: address of IP, empty where there is none.
        calls: requests that are not answered, by their ids.
        waiting: answers that the library has not taken yet.
        waiting_bytes: bytes of those.
        unread: large answers that the library has, each with its bytes.
    """

    __slots__ = (
        "address",
        "calls",
        "descriptor",
        "identity",
        "unread",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, identity: bytes, descriptor: int, address: str) -> None:
        """Begin with a client that has asked nothing."""
        self.identity = identity
        self.descriptor = descriptor
        self.address = address
        self.calls: dict[bytes, Deferred[Any]] = {}
        self.waiting: deque[Waiting] = deque()
        self.waiting_bytes = 0
        self.unread: list[tuple[Unread, int]] = []

    @property
    def is_full(self) -> bool:
        """Whether the client may ask nothing more for now."""
        return len(self.calls) + len(self.waiting) >= MAX_PEER_REQUESTS

    @property
    def has_window(self) -> bool:
        """Whether the library may have one more large answer."""
        if not self.unread:
            return True
        self.unread = [each for each in self.unread if not each[0].done]
        return sum([nbytes for _, nbytes in self.unread]) < WINDOW_BYTES


class Counts(Protocol):
    """What is counted of all clients; see `ZeromqMetrics`."""

    peers: int
    waiting_bytes: int
    dropped_answers: int
    ignored_messages: int


class Peers:
    """All clients. Reactor thread.

    Attributes:
        max_bytes: bytes of answers that may wait for all clients together.
    """

    def __init__(self, send: Send, counts: Counts, max_bytes: int) -> None:
        """Hand answers to `send`, and count in `counts`."""
        self.max_bytes = max_bytes
        self._send = send
        self._counts = counts
        self._peers: dict[bytes, Peer] = {}
        self._by_descriptor: dict[int, Peer] = {}
        self._blocked: dict[Peer, None] = {}
        self.emptied: Callable[[], object] = lambda: None

    def __len__(self) -> int:
        """How many clients have asked anything."""
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        """Iterate over the clients."""
        return iter(list(self._peers.values()))

    @property
    def is_idle(self) -> bool:
        """Whether no request is unanswered, and no answer waits."""
        return not self._blocked and not any(peer.calls for peer in self._peers.values())

    @property
    def has_blocked(self) -> bool:
        """Whether answers wait for some client."""
        return bool(self._blocked)

    def get(self, identity: bytes) -> Peer | None:
        """Return a client; None if it has asked nothing before."""
        return self._peers.get(identity)

    def opened(self, identity: bytes, descriptor: int, address: str) -> Peer | None:
        """Return a client that asks for the first time; None if it has left already.

        What a client has sent before it left may come after its socket's number is another's.
        """
        earlier = self._by_descriptor.get(descriptor)
        if earlier is not None:
            if _is_older(identity, earlier.identity):
                return None
            self._forget(earlier)
        peer = self._peers[identity] = Peer(identity, descriptor, address)
        if descriptor >= 0:  # else the library does not know it
            self._by_descriptor[descriptor] = peer
        self._counts.peers = len(self._peers)
        return peer

    def left(self, descriptor: int) -> None:
        """Forget the client with this socket, and cancel its requests."""
        peer = self._by_descriptor.get(descriptor)
        if peer is not None:
            self._forget(peer)

    def answer(self, peer: Peer, request_id: bytes, parts: list[Buffer]) -> None:
        """Send the `parts` of an answer, whose first lacks the id."""
        parts[0] = request_id + bytes(parts[0])
        nbytes = sum(map(len, parts))
        is_large = nbytes >= TRACKED_BYTES
        if not peer.waiting and (not is_large or peer.has_window):
            if is_large:
                # A view would hold the outputs of the whole batch until the client has read.
                parts = list(map(_owned, parts))
            if self._handed(peer, Waiting(parts, nbytes, is_large)):
                return
        self._wait(peer, parts, nbytes, is_large)

    def flush(self, most: int) -> None:
        """Hand over what waits, of so many clients at most, those first that waited longest."""
        for peer in list(islice(self._blocked, most)):
            self._blocked.pop(peer, None)
            while peer.waiting and self._next_handed(peer):
                pass
            if peer.waiting:
                self._blocked[peer] = None

    def _next_handed(self, peer: Peer) -> bool:
        answer = peer.waiting[0]
        if answer.is_large and not peer.has_window:
            return False
        if not self._handed(peer, answer):
            return False
        if peer.waiting:  # else the client has gone
            peer.waiting.popleft()
            self._count_bytes(peer, -answer.nbytes - ANSWER_COST_BYTES)
        return True

    def _handed(self, peer: Peer, answer: Waiting) -> bool:
        sent, unread = self._send(peer.identity, answer.parts, answer.is_large)
        if unread is not None:
            peer.unread.append((unread, answer.nbytes))
        if sent is Sent.GONE:
            self._forget(peer)
        return sent is not Sent.FULL

    def _wait(self, peer: Peer, parts: list[Buffer], nbytes: int, is_large: bool) -> None:
        """Keep an answer until the library takes it; in place of too many bytes, keep an error."""
        together = peer.waiting_bytes + nbytes
        if together > self.max_bytes // PEER_SHARE or self._is_over(nbytes):
            self._counts.dropped_answers += 1
            if peer.is_full:  # of a client that asked more than it may, and reads nothing
                return
            error = BuffersFull(_FULL_TEXT.format(together))
            header = error_header(error.http_status, error.code, str(error), {})
            parts = [bytes(parts[0][:ID_BYTES]) + header]
            nbytes, is_large = len(parts[0]), False
            if self._is_over(nbytes):
                return
        peer.waiting.append(Waiting(list(map(_owned, parts)), nbytes, is_large))
        self._count_bytes(peer, nbytes + ANSWER_COST_BYTES)
        self._blocked[peer] = None

    def _is_over(self, nbytes: int) -> bool:
        return self._counts.waiting_bytes + nbytes + ANSWER_COST_BYTES > self.max_bytes

    def _count_bytes(self, peer: Peer, nbytes: int) -> None:
        peer.waiting_bytes += nbytes
        self._counts.waiting_bytes += nbytes

    def _forget(self, peer: Peer) -> None:
        self._peers.pop(peer.identity, None)
        if self._by_descriptor.get(peer.descriptor) is peer:
            del self._by_descriptor[peer.descriptor]
        self._blocked.pop(peer, None)
        peer.waiting.clear()
        self._count_bytes(peer, -peer.waiting_bytes)
        self._counts.peers = len(self._peers)
        calls = list(peer.calls.values())
        peer.calls.clear()
        for call in calls:
            call.cancel()
        self.emptied()


def is_chosen(identity: bytes) -> bool:
    """Return whether a client has chosen its `identity`: the library's begin with a zero byte."""
    return not identity.startswith(b"\0")


def _is_older(identity: bytes, other: bytes) -> bool:
    """Return whether the library made `identity` before `other`; it counts in 32 bits."""
    return (int.from_bytes(other[1:]) - int.from_bytes(identity[1:])) % (1 << 32) < 1 << 31


def _owned(part: Buffer) -> Buffer:
    """Return the bytes of `part`, in memory of their own, as large parts are already."""
    return part if isinstance(part, bytes) or len(part) >= LARGE_BYTES else bytes(part)
