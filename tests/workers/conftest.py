"""What tests of workers stand on: no loss of a device outlives its test."""

from __future__ import annotations

import pytest

from batcher.models import lost_devices


@pytest.fixture(autouse=True)
def found_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every test begin, and leave, a process whose devices all work."""
    monkeypatch.setattr(lost_devices, "_KEPT", [])
