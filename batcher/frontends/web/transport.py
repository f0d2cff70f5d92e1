"""What a connection needs of whatever carries its bytes."""

from __future__ import annotations

from socket import SO_ERROR, SOL_SOCKET
from typing import Any, Protocol

from batcher.codecs.content import Buffer


class Transport(Protocol):
    """What a connection needs of asyncio's transports."""

    def write(self, data: Buffer) -> None:
        """Send `data` behind what was written before."""

    def write_eof(self) -> None:
        """End the sending side once everything is sent."""

    def can_write_eof(self) -> bool:
        """Whether `write_eof` works."""

    def close(self) -> None:
        """Close once everything is sent."""

    def abort(self) -> None:
        """Close now."""

    def pause_reading(self) -> None:
        """Stop delivering data."""

    def resume_reading(self) -> None:
        """Deliver data again."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""

    def get_extra_info(self, name: str) -> Any:
        """Return `peername`, `sockname`, `sslcontext` or `socket`, None if unknown."""


def peer_of(transport: Transport) -> str:
    """Return the client's address, for the log."""
    peer = transport.get_extra_info("peername")
    return (
        f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) > 1 else str(peer or "unix")
    )


def has_failed(transport: Transport) -> bool:
    """Return whether the socket has an error: what was written was answered with a reset."""
    sock = transport.get_extra_info("socket")
    return sock is not None and bool(sock.getsockopt(SOL_SOCKET, SO_ERROR))
