"""The other end of a client's connection, without a socket: bytes in, bytes out."""

from __future__ import annotations

import httptools

from batcher.client.response_reading import HttpResponse
from tests.support.oip_peer import Hang, Lose, Peer


def answer_bytes(answer: HttpResponse) -> bytes:
    """Return `answer` as a server writes it."""
    fields = {"content-length": str(len(answer.body)), **answer.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {answer.status} Reason\r\n{head}\r\n".encode() + answer.body


class PeerConnection:
    """Hands the requests of one connection to a `Peer`.

    Attributes:
        answers: the bytes of the answers that nobody has read yet.
        is_lost: whether the peer ended the connection.
        is_hanging: whether the peer keeps its answer back.
    """

    def __init__(self, peer: Peer) -> None:
        peer.accept()
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self._begin()
        self.answers = b""
        self.is_lost = False
        self.is_hanging = False

    def take(self, data: bytes) -> None:
        """Take what a client sends."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        path, headers, body = self._path, self._headers, self._body
        self._peer.method = self._parser.get_method().decode()
        self._begin()
        try:
            self.answers += answer_bytes(self._peer.ask(path, headers, body))
        except Lose:
            self.is_lost = True
        except Hang:
            self.is_hanging = True

    def _begin(self) -> None:
        self._path, self._body = "", b""
        self._headers: dict[str, str] = {}
