"""The protocol of a connection to Redis: txredisapi's, with a stricter reader of replies.

A Redis answers in the order of the commands, so one reply too many or too few would give each
command the reply of another. txredisapi keeps its place when a caller loses interest, as long as
nobody cancels: so nothing here is ever cancelled. What comes unasked, what is no reply to a command
of ours, and what is too long ends the connection.

txredisapi's own reader takes one value a turn of the loop, and a value of any length. A busy loop
would find most replies late. So the bytes are read here.

With TLS txredisapi would log in, or without a password call the connection ready, before anybody
has seen the server's certificate. So here the login waits for the end of the handshake.

txredisapi imports Twisted's reactor, so this module is imported once there is one, and a Redis is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import BaseRedisProtocol, ResponseError
from zope.interface import implementer

from batcher.config.redis_address import RedisAddress
from batcher.core.error_text import message

MAX_REPLY_BYTES: Final = (1 << 20) + 1
"""Bytes of a reply: one more than a value has."""

MAX_LINE_BYTES: Final = 4096
"""Bytes of a reply that is no value: the text of an error is the longest."""

_END: Final = b"\r\n"


@implementer(IHandshakeListener)
class RedisProtocol(BaseRedisProtocol):  # type: ignore[misc]  # txredisapi has no types
    """One connection. Reactor thread."""

    def __init__(self, call_later: Callable[..., Any], address: RedisAddress) -> None:
        """Log in as `address` says, once connected; `call_later` is the clock's."""
        super().__init__(
            charset=None,
            convertNumbers=False,
            username=address.user,
            password=address.password,
            dbid=address.database or None,
        )
        self.callLater = call_later
        self._host = address.host
        self._has_tls = address.has_tls
        self._unread = bytearray()

    def connectionMade(self) -> None:
        """Log in, unless the server has to show first who it is."""
        if not self._has_tls:
            super().connectionMade()

    def handshakeCompleted(self) -> None:
        """Log in to a server whose certificate is valid."""
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:
        """Fail what is under way; say why, but for an end that either side has chosen."""
        was_ready = self._ready
        super().connectionLost(reason)
        if reason.check(ConnectionAborted):
            if not was_ready:
                self.factory.connectionError("expected a login in time; got none")
        elif not reason.check(ConnectionDone):
            self.factory.connectionError(_why(reason.value, self._host))

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Take replies; end the connection at what no Redis answers to our commands."""
        self._unread += data
        start = 0
        try:
            while (found := self._reply(start)) is not None:
                reply, start = found
                if not self.replyQueue.waiting:
                    raise ValueError("a reply that nobody has asked for")
                self.replyReceived(reply)
        except ValueError:
            self.transport.abortConnection()
        del self._unread[:start]

    def _reply(self, start: int) -> tuple[Any, int] | None:
        """Return the reply that begins at `start`, and where the next one does; None if it is cut.

        Raises ValueError: this is no reply to any of our commands.
        """
        unread = self._unread
        end = unread.find(_END, start, start + MAX_LINE_BYTES)
        if end < 0:
            if len(unread) >= start + MAX_LINE_BYTES:
                raise ValueError("a line without an end")
            return None
        kind, text, begin = unread[start : start + 1], unread[start + 1 : end], end + len(_END)
        if kind == b"$":
            return self._value(int(text), begin)
        if kind == b"+":
            return text.decode(), begin
        if kind == b":":
            return int(text), begin
        if kind == b"-":
            return ResponseError(text.decode(errors="replace")), begin
        raise ValueError("a reply of another kind")

    def _value(self, size: int, begin: int) -> tuple[bytes, int] | None:
        if size == -1:  # a value that is not there
            return b"", begin
        if not 0 <= size <= MAX_REPLY_BYTES:
            raise ValueError("a value of another length")
        stop = begin + size
        if len(self._unread) < stop + len(_END):
            return None
        if self._unread[stop : stop + len(_END)] != _END:
            raise ValueError("a value without an end")
        return bytes(self._unread[begin:stop]), stop + len(_END)


class RedisFactory(Factory):
    """Makes such connections, one at a time. Reactor thread."""

    noisy = False
    isLazy = False
    """The protocol asks: whether it is to log what it tells `connectionError`."""

    def __init__(
        self,
        call_later: Callable[..., Any],
        address: RedisAddress,
        ready: Callable[[RedisProtocol], object],
        lost: Callable[[RedisProtocol], object],
        refused: Callable[[str], object],
    ) -> None:
        """Call `ready` and `lost` with each connection, `refused` with why a login failed."""
        self._arguments = (call_later, address)
        self._ready, self._lost = ready, lost
        self.connectionError = refused

    def buildProtocol(self, addr: Any) -> RedisProtocol:
        """Return the protocol of a new connection."""
        protocol = RedisProtocol(*self._arguments)
        protocol.factory = self
        protocol.whenConnected().addCallback(self._ready)
        protocol.whenDisconnected().addCallback(lambda _: self._lost(protocol))
        return protocol

    def stopTrying(self) -> None:
        """Hear that a login has failed; the link connects anew by itself."""


def _why(error: object, host: str) -> str:
    """Return in words why a connection to `host` has ended."""
    if isinstance(error, VerificationError):
        return f"TLS: expected a certificate for {host}; got one for another name"
    if isinstance(error, TlsError):
        # Of each fault OpenSSL names library, function and reason.
        faults = error.args[0] if error.args else ()
        return f"TLS: {', '.join([str(fault[-1]) for fault in faults]) or 'an unknown fault'}"
    return message(error)
