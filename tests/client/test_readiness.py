"""Whether a descriptor has something to read, on systems with `poll` and without."""

from __future__ import annotations

import os
from typing import Any

import pytest

from batcher.client.readiness import POLL, Readiness


@pytest.mark.parametrize("poll", [POLL, None], ids=["poll", "select"])
def test_what_has_come_is_seen_and_silence_is_not_waited_for(poll: Any) -> None:
    reading, writing = os.pipe()
    has_come = Readiness(reading, poll)
    assert not has_come
    os.write(writing, b"x")
    assert has_come
    os.read(reading, 1)
    assert not has_come
    os.close(writing)
    assert has_come, "the end"
    os.close(reading)
