"""What the blocking and the asyncio form share.

How a request is handed to httpx, and what its errors mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import httpx

from batcher.client.errors import AnswerLost, NotConnected
from batcher.client.exchange import Exchange
from batcher.client.questions import Outgoing
from batcher.client.retrying import CONNECT_SECONDS, KEEP_SECONDS


def limits(connections: int) -> httpx.Limits:
    """Return a pool that keeps as many connections as it may open."""
    return httpx.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=KEEP_SECONDS,
    )


def arguments(address: str, outgoing: Outgoing, left: float) -> dict[str, Any]:
    """Return the arguments of httpx's `request` for an attempt that has `left` seconds."""
    seconds = left if left < inf else None
    return {
        "method": outgoing.method,
        "url": address + outgoing.path,
        "headers": outgoing.headers,
        "content": outgoing.body or None,
        "timeout": httpx.Timeout(seconds, connect=min(left, CONNECT_SECONDS)),
    }


@contextmanager
def translated(exchange: Exchange[Any]) -> Iterator[None]:
    """Turn httpx's errors into those of the client."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as err:
        raise NotConnected(f"expected a connection; got none: {err or type(err).__name__}") from err
    except httpx.TimeoutException as err:  # also that of waiting for a place among the connections
        raise exchange.expired() from err
    except httpx.RequestError as err:
        raise AnswerLost(
            f"expected an answer; the connection broke: {err or type(err).__name__}"
        ) from err
