"""A client for this server, and for others of the Open Inference Protocol v2.

Arrays in, arrays out.

Three forms of the same: `Client` blocks (httpx), `AsyncClient` is for asyncio (httpx),
`TwistedClient` for Twisted (treq). What they share does no I/O (`exchange`), so a form only sends,
waits and tells the time. A form is imported when it is asked for: none needs the library of
another, and none installs a reactor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batcher.client.answers import InferResult
from batcher.client.errors import (
    AnswerLost,
    ClientFailure,
    DeadlineExceeded,
    InferenceFailed,
    MalformedAnswer,
    NotConnected,
)
from batcher.client.tensors import Bfloat16

if TYPE_CHECKING:
    from batcher.client.asynchronous import AsyncClient
    from batcher.client.blocking import Client
    from batcher.client.deferred import TwistedClient

__all__ = [
    "AnswerLost",
    "AsyncClient",
    "Bfloat16",
    "Client",
    "ClientFailure",
    "DeadlineExceeded",
    "InferResult",
    "InferenceFailed",
    "MalformedAnswer",
    "NotConnected",
    "TwistedClient",
]
_FORMS = {"AsyncClient": "asynchronous", "Client": "blocking", "TwistedClient": "deferred"}


def __getattr__(name: str) -> Any:
    """Return one of the three forms, imported now."""
    if name not in _FORMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FORMS[name]}"), name)
