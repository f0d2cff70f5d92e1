"""What the log says while files are read at a start."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from batcher.config.settings import ServerSettings
from batcher.config.single_file import SingleFile
from batcher.errors import ConfigError
from batcher.serving.repository.listing import ModelFolder
from batcher.serving.repository.reading import at_load


def test_a_single_file_has_a_line_of_the_log_before_it_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def define(folder: ModelFolder, trusted: bool) -> None:
        events.append("described")
        raise ConfigError("it says nothing")

    def observe(event: LogEvent) -> None:
        events.append(formatEvent(event))

    monkeypatch.setattr("batcher.serving.repository.source.define", define)
    folder = ModelFolder("m", "1", tmp_path, SingleFile(tmp_path / "net.py"))
    globalLogPublisher.addObserver(observe)
    try:
        assert at_load(folder, ServerSettings(), {}, None).fault == "it says nothing"
    finally:
        globalLogPublisher.removeObserver(observe)
    assert events == ["model m: describing net.py", "described"]
