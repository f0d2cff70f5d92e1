"""How the blocking and the asyncio form use httpx: its arguments, its pool and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import httpx

from batcher.client.attempts import Attempts
from batcher.client.errors import AnswerLost, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.retrying import CONNECT_TIMEOUT_S, KEEP_ALIVE_S


def pool_limits(connections: int) -> httpx.Limits:
    """Return the limits of a pool that keeps as many connections as it may open."""
    return httpx.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=KEEP_ALIVE_S,
    )


def httpx_arguments(address: str, request: HttpRequest, seconds_left: float) -> dict[str, Any]:
    """Return the arguments of httpx's `request` for an attempt that has `seconds_left`."""
    seconds = seconds_left if seconds_left < inf else None
    return {
        "method": request.method,
        "url": address + request.path,
        "headers": request.headers,
        "content": request.body or None,
        "timeout": httpx.Timeout(seconds, connect=min(seconds_left, CONNECT_TIMEOUT_S)),
    }


@contextmanager
def client_failures(attempts: Attempts[Any]) -> Iterator[None]:
    """Turn httpx's errors inside the block into those of the client."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as err:
        raise NotConnected(f"expected a connection; got none: {err or type(err).__name__}") from err
    # also the end of a wait for a place among the pool's connections
    except httpx.TimeoutException as err:
        raise attempts.expired() from err
    except httpx.RequestError as err:
        raise AnswerLost(
            f"expected an answer; the connection broke: {err or type(err).__name__}"
        ) from err
