"""What every test stands on: no unhandled error may be logged, property tests are the same on every machine."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogEvent, globalLogPublisher

settings.register_profile(
    "batcher",
    deadline=None,  # a shared machine is slow at times; a test never fails for that
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("batcher")


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[list[LogEvent]]:
    """Fail the test if Twisted logs an unhandled error while it runs; a test that expects one empties the list."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_failure") is not None or event.get("isError"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    gc.collect(0)  # a failed Deferred that nobody heard of speaks when it is collected
    globalLogPublisher.removeObserver(observe)
    assert not events, [str(event.get("log_failure") or event) for event in events]
