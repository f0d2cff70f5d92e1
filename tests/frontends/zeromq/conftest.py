"""The ZeroMQ front without the library: parts come when a test says so, and answers are kept."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgpack
import pytest

from batcher.codecs.content import Buffer
from batcher.codecs.zeromq_calls import ID_BYTES
from batcher.frontends.zeromq.messages import Messages
from batcher.frontends.zeromq.peers import Peers, Sent, Unread
from batcher.frontends.zeromq.requests import Requests
from batcher.frontends.zeromq.tensors import TensorAnswers
from tests.support.http import MemoryServer
from tests.support.models import rows

PEER = b"\0\0\0\0\1"
OTHER = b"\0\0\0\0\2"


class Answer(NamedTuple):
    """What a client reads."""

    peer: bytes
    number: int
    header: dict[str, Any]
    parts: list[bytes]


class OnItsWay:
    """A large answer that the library has."""

    def __init__(self) -> None:
        self.done = False


class StandIn:
    """The library's socket.

    Attributes:
        full: clients that do not read.
        gone: clients that have left.
        descriptors: client to the number of its socket.
        copied: for each part that was received, whether it was copied.
        unread: large answers.
    """

    def __init__(self) -> None:
        self.full: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.descriptors: dict[bytes, int] = {PEER: 7, OTHER: 8}
        self.copied: list[bool] = []
        self.unread: list[OnItsWay] = []
        self.answers: list[Answer] = []
        self._parts: deque[tuple[bytes, bytes, bool]] = deque()
        self._last = b""

    def come(self, peer: bytes, *parts: bytes) -> None:
        """Have a message come."""
        whole = (peer, *parts)
        self._parts += [(peer, part, place < len(parts)) for place, part in enumerate(whole)]

    def receive_identity(self) -> bytes | None:
        if not self._parts:
            return None
        self._last, part, more = self._parts.popleft()
        assert more, "the library has a part behind each identity"
        self.copied.append(True)
        return part

    def receive(self, copied: bool) -> tuple[Buffer, bool]:
        self._last, part, more = self._parts.popleft()
        self.copied.append(copied)
        return (part if copied else memoryview(part)), more

    def receive_with_origin(self) -> tuple[Buffer, bool, tuple[int, str]]:
        part, more = self.receive(False)
        return part, more, (self.descriptors.get(self._last, 99), "192.0.2.1")

    def send(self, identity: bytes, parts: list[Buffer], track: bool) -> tuple[Sent, Unread | None]:
        if identity in self.gone:
            return Sent.GONE, None
        if identity in self.full:
            return Sent.FULL, None
        header, *rest = map(bytes, parts)
        number = int.from_bytes(header[:ID_BYTES], "big")
        self.answers.append(Answer(identity, number, msgpack.unpackb(header[ID_BYTES:]), rest))
        if not track:
            return Sent.TAKEN, None
        self.unread.append(OnItsWay())
        return Sent.TAKEN, self.unread[-1]


class Wire:
    """The front of a server in memory.

    Attributes:
        server: the server.
        port: the stand-in for the library.
        peers: the clients.
        requests: what answers messages.
        messages: what puts messages together.
        refused: clients that were refused for their identities.
        left: descriptors of connections that have ended and were not noted.
    """

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server or MemoryServer()
        self.port = StandIn()
        self.refused: list[bytes] = []
        self.left: list[int] = []
        self.counts = counts = self.server.server.metrics.zeromq
        settings, router = self.server.settings, self.server.router
        self.peers = Peers(self.port.send, counts, settings.max_buffer_bytes)
        tensors = TensorAnswers(self.server.server, router.answer_log, router.disclosure)
        self.requests = Requests(tensors, router, self.peers, counts)
        self.messages = Messages(
            self.port,
            self.peers,
            self.requests.known.kept,
            self.requests.take,
            lambda identity, header: self.refused.append(identity),
            self._note,
        )
        self.messages.max_bytes = settings.max_body_bytes
        self.messages.max_header_bytes = settings.max_header_bytes

    def _note(self) -> None:
        while self.left:
            self.peers.left(self.left.pop(0))

    def send(self, number: int, header: Any, *parts: bytes, peer: bytes = PEER) -> None:
        """Have a message come, and take it."""
        data = header if isinstance(header, bytes) else msgpack.packb(header)
        self.port.come(peer, number.to_bytes(ID_BYTES, "big") + data, *parts)
        assert self.messages.read(1000)

    def answered(self) -> list[Answer]:
        """Return the answers that have come since, after all batches have run."""
        self.server.work()
        answers, self.port.answers = self.port.answers, []
        return answers

    def ask(self, number: int, header: Any, *parts: bytes, peer: bytes = PEER) -> Answer:
        """Return the one answer to a message."""
        self.send(number, header, *parts, peer=peer)
        (answer,) = self.answered()
        assert (answer.peer, answer.number) == (peer, number)
        return answer


def infer(*values: float, **more: Any) -> tuple[dict[str, Any], bytes]:
    """Return header and part of a request of one row of the default model for each value."""
    array = rows(*(values or (1.0,)))
    entry = {"name": "x", "datatype": "FP32", "shape": list(array.shape)}
    return {"model_name": "m", "inputs": [entry], **more}, array.tobytes()


@pytest.fixture
def wire() -> Wire:
    """Return the front of a server with one model, which doubles."""
    return Wire()
