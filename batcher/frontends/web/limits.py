"""How much, and how slowly, a client may send."""

from __future__ import annotations

from dataclasses import dataclass

from batcher.config.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection, and of all together. Sizes in bytes, times in seconds.

    Attributes:
        body: most bytes of a body, also after decompression.
        uri: most bytes of a request target.
        header: most bytes of all header fields together.
        header_timeout: seconds within which a request's head must arrive.
        body_timeout: seconds that a body may take besides the time that `body_rate` allows it.
        body_rate: bytes/s that a body must arrive with at least.
        idle_timeout: seconds after which a connection without a request is closed.
        write_timeout: seconds after which a client that does not read is cut off.
        buffers: most bytes of bodies and answers that all connections together hold.
        connections: most connections at a time.
        connection_age: seconds after which a connection ends with its next answer; 0 is never.
        pipelined: most requests of one connection that are worked on at a time.
    """

    body: int
    uri: int
    header: int
    header_timeout: float
    body_timeout: float
    body_rate: int
    idle_timeout: float
    write_timeout: float
    buffers: int
    connections: int
    connection_age: float
    pipelined: int

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> Limits:
        """Take the limits out of the server's settings."""
        return cls(
            body=settings.max_body_bytes,
            uri=settings.max_uri_bytes,
            header=settings.max_header_bytes,
            header_timeout=settings.header_timeout_s,
            body_timeout=settings.body_timeout_s,
            body_rate=settings.min_body_rate,
            idle_timeout=settings.idle_timeout_s,
            write_timeout=settings.write_timeout_s,
            buffers=settings.max_buffer_bytes,
            connections=settings.max_connections,
            connection_age=settings.max_connection_age_s,
            pipelined=settings.max_pipelined_requests,
        )
