"""The least that Python can do: httptools on a uvloop transport answers each body with itself.

There is no batch and no model.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from httptools import HttpRequestParser

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%b"


class Echo(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.parser = HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes."""
        self.parser.feed_data(data)

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self.body += piece

    def on_message_complete(self) -> None:
        """Answer."""
        body, self.body = self.body, b""
        self.transport.write(HEAD % (len(body), body))


async def serve(port: int) -> None:
    """Listen until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
