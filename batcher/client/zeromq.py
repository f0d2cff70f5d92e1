"""Exchanges over ZeroMQ, for all three forms: `zmq://` addresses.

Each connection is a DEALER socket with one request at a time, as connections of HTTP have. A
request is the one that HTTP would send: method, path, fields and body (`codecs/zeromq_calls.py`).

The library connects, and connects again, by threads of its own. So a monitor of the socket tells
whether there is a connection, and whether it is still the same: an answer comes by the connection
that has carried its request, or never. After a loss the socket is closed, and another is made.

A socket has a descriptor that tells once that something may have happened, also to a socket that
was only written to. So a form looks (`advance`) when the descriptor says so, and after it has sent.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from typing import Any

import zmq

from batcher.client.attempts import ClientOptions
from batcher.client.errors import AnswerLost, ClientFailure, MalformedAnswer, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.server_address import CurveKeys
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.zeromq_calls import (
    ID_BYTES,
    NOTICE_ID,
    call_header,
    read_answer_header,
)
from batcher.errors import BatcherError

_EVENT = struct.Struct("=hi")
_LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED
_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_EVENTS = _LOST | _REFUSED | zmq.EVENT_HANDSHAKE_SUCCEEDED
_MAX_SOCKETS = 1 << 16
"""Sockets of one process; the library's own bound is 1,023, and each connection takes two."""

_OF_HTTP = ("host", "accept-encoding")
"""Fields of every request that mean nothing to ZeroMQ."""


@lru_cache(maxsize=1)
def _context(process: int) -> Any:
    """Return the library's context of a process: none may be used after a fork."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
    return context


@lru_cache(maxsize=64)
def _common(lines: str) -> dict[str, str]:
    fields = dict(line.split(": ", 1) for line in lines.split("\r\n") if line)
    return {name: value for name, value in fields.items() if name not in _OF_HTTP}


class ZeromqExchange:
    """One connection, and one request at a time on it. One thread at a time.

    Attributes:
        is_connected: whether the server has let the client in.
        is_reusable: whether the connection may carry another request.
        socket: the library's socket for messages.
        monitor: the library's socket that tells of the connection.
    """

    def __init__(self, options: ClientOptions, curve: CurveKeys | None) -> None:
        """Begin to connect."""
        self.is_connected = False
        self.is_reusable = True
        self._options = options
        self._asked = 0
        self._is_waiting = False
        self._lost: ClientFailure | None = None
        context = _context(os.getpid())
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        if options.address.host.find(":") >= 0:
            self.socket.set(zmq.IPV6, 1)
        if curve is not None:
            self.socket.set(zmq.CURVE_SERVERKEY, curve.server.encode())
            self.socket.set(zmq.CURVE_PUBLICKEY, curve.public.encode())
            self.socket.set(zmq.CURVE_SECRETKEY, curve.secret.encode())
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self.socket.connect(options.address.endpoint)

    def send(self, request: HttpRequest) -> None:
        """Send a request."""
        self._asked += 1
        self._is_waiting = True
        fields = {**_common(self._options.common_lines), **request.headers}
        header = call_header(self._request_id(), request.method, request.path, fields)
        self.socket.send_multipart([header, request.body] if request.body else [header])

    def advance(self) -> HttpResponse | None:
        """Take note of all that has come; return the answer, None if it is not here yet.

        Raises:
            AnswerLost: the connection that carried the request has ended.
            MalformedAnswer: what came is no answer of this protocol.
            NotConnected: no connection could be made, or the server does not let the client in.
        """
        # First the connection: whatever came before its end is there to be read then.
        lost = self._end_of_connection()
        found = None
        while (parts := _received(self.socket)) is not None:
            found = self._read(parts) or found
        if lost is not None and found is None:
            raise lost
        return found

    def close(self) -> None:
        """End the connection; the server drops a request that is not answered."""
        self.is_reusable = False
        if not self.socket.closed:
            self.socket.disable_monitor()
            self.monitor.close(0)
            self.socket.close(0)

    def _request_id(self) -> bytes:
        return self._asked.to_bytes(ID_BYTES, "big")

    def _read(self, parts: list[bytes]) -> HttpResponse | None:
        try:
            header = read_answer_header(parts[0])
        except BatcherError as err:
            raise MalformedAnswer(str(err)) from err
        if header.request_id == NOTICE_ID:  # the server is about to end
            self.is_reusable = False
            return None
        if header.request_id != self._request_id() or not self._is_waiting:
            return None
        self._is_waiting = False
        body = b"".join(parts[1:])
        if header.error and not body:
            body = to_json({"error": header.error})
        return HttpResponse(header.status, header.headers, body)

    def _end_of_connection(self) -> ClientFailure | None:
        """Take note of what the library tells of the connection; return why it has ended, if so."""
        while self._lost is None and (parts := _received(self.monitor)) is not None:
            event, _ = _EVENT.unpack(parts[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_connected = True
            else:
                self.is_reusable = False
                self._lost = self._reason(event)
        return self._lost

    def _reason(self, event: int) -> ClientFailure:
        if event & _REFUSED:
            return NotConnected("expected to be let in; the server refused the handshake")
        if self.is_connected:
            return AnswerLost("expected an answer; the connection broke: the server closed it")
        return NotConnected(f"expected a connection to {self._options.address.endpoint}; got none")


def _received(socket: Any) -> list[bytes] | None:
    """Return the parts of the next message of `socket`; None if there is none."""
    try:
        parts: list[bytes] = socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
    return parts
