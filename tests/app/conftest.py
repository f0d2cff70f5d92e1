"""A service that serves two models, the log of its reloads, and models that stop as they load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from tests.serving.repository.test_repository import write
from tests.support.gate import GATE
from tests.support.service import MemoryService

GATED = "2}\n\nfrom tests.support.gate import GATE\n\nGATE.stop()\n#"
"""A factor behind which the module stops at the gate while it is imported."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[MemoryService]:
    """Return a service that serves the models `m` and `n`, which multiply by 2 and by 3."""
    write(tmp_path / "models/m/1", "2")
    write(tmp_path / "models/n/1", "3")
    service = MemoryService(tmp_path)
    service.start()
    yield service
    GATE.open()
    service.end()


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """Return the lines of the log about reloads, as they come."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "batcher.app.reloading":
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Return the warnings about the model repository, as they come."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "batcher.serving.repository.listing":
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def closed_gate_in(folder: Path) -> None:
    """Have the model in `folder` stop while it loads."""
    GATE.close()
    write(folder, GATED)
