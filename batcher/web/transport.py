"""What a connection needs of whatever carries its bytes."""

from __future__ import annotations

from typing import Any, Protocol


class Transport(Protocol):
    """What a connection needs of asyncio's transports."""

    def write(self, data: bytes) -> None:
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
        """Return how many bytes wait to be sent; only its change counts."""

    def get_extra_info(self, name: str) -> Any:
        """Return `peername`, `sockname`, `sslcontext` or `socket`, None if unknown."""
