"""Ports of gRPC and ZeroMQ that stay the same from one engine to the next.

With port 0 the system chooses a port at each opening, and clients of the first engine would look
for the next one in vain. So the process that starts the engines has the system choose once, and
every engine is told that port:

    port 0 --> a socket that is bound, and does not listen --> its number, in the settings

The socket keeps the port from other programs while there is no engine. The engine opens the port by
itself, beside that socket: Linux allows it, since both have SO_REUSEADDR and only one listens.

Refused: to open these ports here and to hand them on, as those of HTTP. Who connects while there is
no engine would wait for as long as models take to load, and both libraries connect again by
themselves.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from batcher.app.reloading import Read
from batcher.config.settings import ServerSettings
from batcher.frontends.listening.sockets import bound_sockets, close_listeners

_TCP = "tcp://"
_ANY_PORT = ":0"


class KeptPorts:
    """The ports that the system chose when a server started. Main thread."""

    def __init__(self, settings: ServerSettings) -> None:
        """Have the system choose a port wherever `settings` ask for that."""
        self._sockets: list[socket.socket] = []
        self._grpc = self._choose(settings.host) if settings.grpc_port == 0 else 0
        host = _open_host(settings.zeromq)
        self._zeromq = self._choose(host) if host is not None else 0

    def _choose(self, host: str) -> int:
        """Return a port of `host`, and keep it; 0 if none can be had: the engine will say why."""
        with suppress(OSError):
            found = bound_sockets(host, 0, False)
            self._sockets += found
            port: int = found[0].getsockname()[1]
            return port
        return 0

    def named_in(self, settings: ServerSettings) -> ServerSettings:
        """Return `settings` with the chosen ports in place of each port 0."""
        found: dict[str, Any] = {}
        if settings.grpc_port == 0:
            found["grpc_port"] = self._grpc
        if _open_host(settings.zeromq) is not None:
            address = str(settings.zeromq).removesuffix(_ANY_PORT)
            found["zeromq"] = f"{address}:{self._zeromq}"
        return settings.model_copy(update=found)

    def named_by(self, read: Read) -> Read:
        """Return what reads settings by `read` and returns them with the chosen ports."""
        return lambda: self.named_in(read())

    def close(self) -> None:
        """Let go of the ports, in this process: another one keeps them."""
        close_listeners(self._sockets)


def _open_host(zeromq: str | None) -> str | None:
    """Return the host of ZeroMQ's address if its port is 0; an empty host stands for all."""
    if zeromq is None or not (zeromq.startswith(_TCP) and zeromq.endswith(_ANY_PORT)):
        return None
    return zeromq.removeprefix(_TCP).removesuffix(_ANY_PORT).strip("[]").replace("*", "")
