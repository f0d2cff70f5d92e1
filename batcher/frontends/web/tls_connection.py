"""A connection of HTTP over TLS, on the transports of an asyncio loop."""

from __future__ import annotations

from typing import Any

from batcher.frontends.listening.tls_transport import TlsTransport
from batcher.frontends.web.connection import Connection


class TlsConnection(Connection):
    """A connection over TLS. Reactor thread."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(TlsTransport(transport))
