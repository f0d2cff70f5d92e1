"""The same request over both stacks: the fast connection, and Klein in a twisted.web site.

The two answers must not differ.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.http import MemoryServer, over_connection, over_twisted_web
from tests.support.http_answers import Answer

COMPARED = ("content-type", "content-length", "allow", "retry-after", "x-request-id")

Both = Callable[[MemoryServer, bytes], Answer]


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
