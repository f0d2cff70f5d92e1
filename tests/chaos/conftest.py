"""What chaos tests share."""

from __future__ import annotations

import pytest

from tests.end_to_end.processes import ROOT


@pytest.fixture(scope="session")
def process_workers() -> None:
    """Skip what needs workers in processes and their watchdog until they are there."""
    if not (ROOT / "batcher/workers/process.py").is_file():
        pytest.skip("there is no batcher.workers.process yet")
