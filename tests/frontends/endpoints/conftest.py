"""The same request over both stacks: the fast connection, and Klein in a twisted.web site.

The two answers must not differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from tests.support.http import MemoryServer, over_connection, over_twisted_web
from tests.support.http_answers import Answer

COMPARED = ("content-type", "content-length", "allow", "retry-after", "x-request-id")

REFERENCE = "0123456789abcdef"
"""The request id that is made for every request without one, in these tests."""

MORE = f" (the server's log says more: request {REFERENCE})"
"""How the text of an error ends that withholds something from the client."""

Both = Callable[[MemoryServer, bytes], Answer]


@pytest.fixture(autouse=True)
def _same_reference() -> Iterator[None]:
    with patch("batcher.frontends.endpoints.disclosure.token_hex", lambda _: REFERENCE):
        yield


@pytest.fixture
def both() -> Both:
    """Return a function that sends a request over both stacks and compares the answers.

    The function returns the answer.
    """

    def send(server: MemoryServer, request: bytes) -> Answer:
        fast, klein = over_connection(server, request), over_twisted_web(server, request)
        assert (fast.status, fast.body) == (klein.status, klein.body)
        assert [fast.header(name) for name in COMPARED] == [klein.header(name) for name in COMPARED]
        return fast

    return send


@pytest.fixture(params=["connection", "twisted.web"])
def stack(request: pytest.FixtureRequest) -> Callable[[MemoryServer, bytes], Answer]:
    """Return a function that sends a request over one of the stacks."""
    return over_connection if request.param == "connection" else over_twisted_web
