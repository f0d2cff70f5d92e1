"""What chaos tests share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def process_workers() -> None:
    """Skip what needs workers in processes and their watchdog until they are there."""
    if find_spec("batcher.workers.process") is None:
        pytest.skip("there is no batcher.workers.process yet")
