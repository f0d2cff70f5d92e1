"""What end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.clients import running_reactor


@pytest.fixture(scope="session")
def reactor_thread() -> Iterator[None]:
    """Run Twisted's own reactor in a thread, for all tests.

    A reactor cannot be started twice in a process.
    """
    with running_reactor():
        yield
