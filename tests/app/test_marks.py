"""A service keeps marks of what its models count, so that the first look tells of the last load."""

from __future__ import annotations

from pathlib import Path

from tests.serving.repository.test_repository import write
from tests.support.service import MemoryService


def test_a_mark_is_taken_each_second_until_the_end(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(tmp_path)
    service.start()
    counts = service.server.metrics.model("m", "1")
    service.loop.clock.advance(1)
    assert service.value(service.infer()) == 2
    service.loop.clock.advance(1)
    service.loop.clock.advance(60)
    window = counts.history.window(counts.mark(service.loop.clock.seconds(), 0.0))
    assert window is not None
    assert window[1].requests - window[0].requests == 1
    assert window[1].time - window[0].time <= 2
    service.end()
    assert not [call for call in service.loop.clock.getDelayedCalls() if "Looping" in repr(call)]
