"""Keys of CURVE, and the socket on which the library asks who may connect.

Keys lie in ZeroMQ's own certificates, as `zmq.auth.create_certificates` writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import zmq
from zmq import auth
from zmq.utils import z85

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.frontends.zeromq.admission import Admission

ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
DOMAIN: Final = b"batcher"
"""A socket without a domain asks nobody who may connect."""


class AdmissionSocket:
    """The socket on which the library asks. Reactor thread."""

    def __init__(self, context: Any, admission: Admission) -> None:
        """Listen within the process."""
        self.socket = context.socket(zmq.REP)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)
        self._admission = admission

    def look(self) -> None:
        """Answer all questions that wait."""
        while True:
            try:
                question = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._admission.answer(question))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close(0)


def use_keys(socket: Any, settings: ServerSettings, base: Path) -> frozenset[bytes] | None:
    """Have `socket` speak CURVE if `settings` say so; return the keys of clients that are let in.

    None where every client is. Raises ConfigError: a file is no certificate of ZeroMQ.
    """
    socket.set(zmq.ZAP_DOMAIN, DOMAIN)
    if settings.zeromq_key is None:
        if settings.zeromq_clients is not None:
            place, got = settings.origin("zeromq_clients"), settings.zeromq_clients
            raise ConfigError(f"{place}: zeromq_clients: expected zeromq_key beside it; got {got}")
        return None
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_SECRETKEY, _secret_key(settings, base))
    return _client_keys(settings, base)


def _secret_key(settings: ServerSettings, base: Path) -> bytes:
    path = base / str(settings.zeromq_key)
    try:
        _, secret = auth.load_certificate(path)
        secret = secret or b""
        zmq.curve_public(secret)  # raises ValueError: there is no key, or it is none
    except (OSError, ValueError, zmq.ZMQError) as err:
        raise _wrong(settings, "zeromq_key", "a secret certificate of ZeroMQ", path, err) from err
    return secret


def _client_keys(settings: ServerSettings, base: Path) -> frozenset[bytes] | None:
    """Return the public keys in the folder `zeromq_clients`; None if every client is let in.

    Raises ConfigError: there is no such folder, or a file in it is no certificate.
    """
    if settings.zeromq_clients is None:
        return None
    folder = base / settings.zeromq_clients
    try:
        if not folder.is_dir():
            raise NotADirectoryError("there is no such folder")
        found = [auth.load_certificate(path)[0] for path in sorted(folder.glob("*.key"))]
        keys = frozenset(z85.decode(key) for key in found)
    except (OSError, ValueError, LookupError) as err:
        what = "a folder of certificates of clients"
        raise _wrong(settings, "zeromq_clients", what, folder, err) from err
    return keys


def _wrong(
    settings: ServerSettings, name: str, expected: str, path: Path, reason: object
) -> ConfigError:
    place = settings.origin(name)
    return ConfigError(f"{place}: {name}: expected {expected}; got {path}: {reason}")
