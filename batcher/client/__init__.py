"""A client for this server, and for other servers of the Open Inference Protocol v2.

The client takes numpy arrays and returns numpy arrays. There are three forms with the same methods:

    Client         blocks the calling thread
    AsyncClient    for asyncio
    TwistedClient  for Twisted

The modules that the forms share do no I/O: `attempts`, `http_exchange`, `connection_pool`. A form
only connects, sends, waits and tells the time. A form is imported on first use: Twisted is needed
by its own form alone, and no form installs a reactor.

A client has one server, or several: a list, or what a registry lists (`registries/`). Of several,
`server_list` says which one is asked, without I/O; `balancer` follows the list and probes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batcher.client.errors import (
    AnswerLost,
    ClientClosed,
    ClientFailure,
    DeadlineExceeded,
    InferenceFailed,
    MalformedAnswer,
    NotConnected,
)
from batcher.client.response_reading import InferResult
from batcher.client.server_address import CurveKeys
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
    "ClientClosed",
    "ClientFailure",
    "CurveKeys",
    "DeadlineExceeded",
    "InferResult",
    "InferenceFailed",
    "MalformedAnswer",
    "NotConnected",
    "TwistedClient",
]
_MODULE_OF_FORM = {
    "AsyncClient": "asynchronous",
    "Client": "blocking",
    "TwistedClient": "deferred",
}


def __getattr__(name: str) -> Any:
    """Import one of the three forms now and return it."""
    if name not in _MODULE_OF_FORM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULE_OF_FORM[name]}"), name)
    except ModuleNotFoundError as err:
        if err.name != "twisted":
            raise
        raise ModuleNotFoundError(
            f"{name}: expected `pip install 'batcher-inference-client[twisted]'`; got no Twisted",
            name=err.name,
        ) from err
