"""Who may connect: ZAP, by which the library asks whether to let a client in.

The library's threads ask at each new connection, over a socket of the same process (RFC 27, ZAP).
With `zeromq_key`, clients prove their keys by CURVE (RFC 26), and only those are let in whose
public keys lie in `zeromq_clients`. Without, every client is. In both cases the server has room for
`max_connections` clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

_VERSION: Final = b"1.0"
_FRAMES: Final = 6
"""Parts of a question before the credentials."""


class Admission:
    """Answers the library's questions. Reactor thread.

    Attributes:
        keys: public keys of clients that are let in, of 32 bytes each; None lets in every client.
    """

    def __init__(self, has_room: Callable[[], bool], keys: frozenset[bytes] | None) -> None:
        """Let clients in while `has_room` says so."""
        self.keys = keys
        self._has_room = has_room

    def answer(self, question: Sequence[bytes]) -> list[bytes]:
        """Return the parts of the answer to a question's parts."""
        version, request_id = [*question[:2], b"", b""][:2]
        if version != _VERSION or len(question) < _FRAMES:
            return _answer(request_id, b"500", b"expected ZAP 1.0")
        mechanism, credentials = question[5], question[_FRAMES:]
        if not self._has_room():
            return _answer(request_id, b"400", b"too many connections")
        is_proved = mechanism == b"CURVE" and len(credentials) == 1
        if self.keys is not None and not (is_proved and credentials[0] in self.keys):
            return _answer(request_id, b"400", b"unknown key")
        return _answer(request_id, b"200", b"OK")


def _answer(request_id: bytes, status: bytes, text: bytes) -> list[bytes]:
    return [_VERSION, request_id, status, text, b"", b""]
