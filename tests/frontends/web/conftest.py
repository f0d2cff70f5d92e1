"""The transports that every test of a connection runs over, and servers that end empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.http import MemoryServer
from tests.support.transports import KINDS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of transport that a test's connections run over."""
    kind: str = request.param
    return kind


@pytest.fixture
def serve() -> Iterator[Callable[..., MemoryServer]]:
    """Return a function that makes servers, which must hold nothing once all clients are gone."""
    servers: list[MemoryServer] = []

    def make(*models: object, **settings: object) -> MemoryServer:
        servers.append(MemoryServer(*models, **settings))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.check_nothing_is_left()
