"""The blocking form over ZeroMQ: a connection as `SharedSockets` has them."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf
from socket import socketpair
from typing import Any

import zmq

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.errors import AnswerLost, ClientFailure, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.server_address import CurveKeys
from batcher.client.zeromq import ZeromqExchange

_MAX_WAIT_MS = 1e9
"""Longest wait that is asked of the system, twelve days."""


class ZeromqConnection:
    """A connection of the client's; one request at a time, of one thread at a time."""

    def __init__(
        self, options: ClientOptions, curve: CurveKeys | None, seconds: Callable[[], float]
    ) -> None:
        """Begin to connect."""
        self._exchange = ZeromqExchange(options, curve)
        self._seconds = seconds
        # The library's sockets are of one thread: another one wakes it by this pair.
        self._wake, self._woken = socketpair()
        self._poller = zmq.Poller()
        for each in (self._exchange.socket, self._exchange.monitor, self._woken.fileno()):
            self._poller.register(each, zmq.POLLIN)

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent: a server that is about to end, or has ended, is left."""
        try:
            self._exchange.advance()
        except ClientFailure:
            return False
        return self._exchange.is_reusable

    @property
    def is_reusable(self) -> bool:
        """Whether the last response allows another request."""
        return self._exchange.is_reusable

    def connect(self, seconds: float) -> None:
        """Wait until the server has let the client in. Raises NotConnected."""
        end = self._seconds() + seconds
        while not self._exchange.is_connected:
            self._exchange.advance()
            if not self._exchange.is_connected and not self._wait(end - self._seconds()):
                raise NotConnected(f"expected a connection within {seconds:g} s; got none")

    def ask(self, request: HttpRequest, attempts: Attempts[Any]) -> HttpResponse:
        """Send a request and return the response.

        Raises:
            AnswerLost: the connection ended before the response.
            DeadlineExceeded: the time is over.
        """
        self._exchange.send(request)
        while True:
            response = self._exchange.advance()
            if response is not None:
                return response
            seconds_left = attempts.seconds_left(self._seconds())
            if not self._wait(seconds_left):
                raise attempts.expired()

    def stop(self) -> None:
        """Wake the thread that waits for the response. Any thread."""
        self._wake.send(b"-")

    def close(self) -> None:
        """End the connection."""
        self._exchange.close()
        self._wake.close()
        self._woken.close()

    def _wait(self, seconds: float) -> bool:
        """Return whether something may have happened before `seconds` are over."""
        if seconds <= 0:
            return False
        wait = None if seconds == inf else ceil(min(seconds * 1000, _MAX_WAIT_MS))
        found = self._poller.poll(wait)
        if any(each == self._woken.fileno() for each, _ in found):
            raise AnswerLost("expected an answer; the client was closed")
        return bool(found)
