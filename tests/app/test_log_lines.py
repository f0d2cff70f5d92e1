"""The log on standard error, as text and as JSON, and what is said of a start and of a stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogEvent, Logger, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from batcher.app.log_lines import _as_json, _PythonLogging, json_line
from batcher.app.start_report import LoadScreen, StartReport
from batcher.errors import ModelLoadError
from tests.serving.test_server_lifecycle import listen
from tests.support.service import MemoryService


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """Return what is logged, as it comes."""
    found: list[LogEvent] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


def as_json(event: LogEvent) -> Any:
    line = _as_json(event)
    assert line is not None
    assert line.endswith("\n")
    assert line.count("\n") == 1
    return json.loads(line)


def test_an_event_is_one_object_with_time_level_source_and_message(events: list[LogEvent]) -> None:
    Logger("batcher.x").warn("two\nlines of {what}", what="text")
    line = as_json(events[0])
    assert list(line) == ["time", "level", "source", "message"]
    assert (line["level"], line["source"]) == ("warn", "batcher.x")
    assert line["message"] == "two\nlines of text"
    assert line["time"].startswith("20")


def test_an_event_about_a_model_names_it(events: list[LogEvent]) -> None:
    Logger("batcher.x").info("model {model}: ready", model="m/1")
    assert as_json(events[0])["model"] == "m/1"


def test_a_traceback_is_part_of_the_message() -> None:
    failure = Failure(ValueError("no"))
    event = {"log_level": LogLevel.critical, "log_format": "it failed", "log_failure": failure}
    line = as_json(event)
    assert line["level"] == "critical"
    assert line["message"].startswith("it failed\nTraceback")
    assert "ValueError: no" in line["message"]


def test_an_event_that_cannot_be_written_costs_no_other() -> None:
    assert _as_json({"log_format": None, "log_time": 0.0}) is None
    assert "Unable to format" in as_json({"log_format": "{gone}", "log_time": 0.0})["message"]


def test_records_of_python_s_logging_come_in_the_same_form(events: list[LogEvent]) -> None:
    logger = logging.Logger("some.library", logging.INFO)
    logger.addHandler(_PythonLogging(logging.WARNING))
    logger.info("nobody asked")
    logger.warning("beware of %s", "{braces}")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("it failed")
    lines = [as_json(event) for event in events]
    assert [(line["level"], line["source"]) for line in lines] == [
        ("warn", "some.library"),
        ("error", "some.library"),
    ]
    assert lines[0]["message"] == "beware of {braces}"
    assert lines[1]["message"].endswith("ValueError: no")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_ready_line_is_one_line_on_standard_output_in_the_format_of_the_log(
    log_format: str, capsys: pytest.CaptureFixture[str], events: list[LogEvent]
) -> None:
    report = StartReport(log_format)
    for text in ("loading", "warming up, batch size 1", "warming up, batch size 2", "ready"):
        report.progress("m/1", text)
    report.ready("http://127.0.0.1:1", [])
    line = capsys.readouterr().out
    text = json.loads(line)["message"] if log_format == "json" else line
    assert " is ready on http://127.0.0.1:1 after " in text
    assert line.count("\n") == 1
    assert [formatEvent(event) for event in events] == [
        "model m/1: loading",
        "model m/1: warming up",
        "model m/1: ready",
    ]


def test_a_check_shows_each_stage_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    screen = LoadScreen()
    screen.progress("m/1", "loading")
    screen.stop()
    assert capsys.readouterr() == ("", "model m/1: loading\n")


def test_a_json_line_has_only_what_is_known() -> None:
    assert set(json.loads(json_line("info", "x", "y"))) == {"time", "level", "source", "message"}


def test_a_stop_says_when_it_drains_and_when_it_has_stopped(
    tmp_path: Path, events: list[LogEvent]
) -> None:
    service = MemoryService(tmp_path, "pre_stop_s: 2\nmodel_control: explicit\n")
    service.start()
    stopped = service.service.stopService()
    service.loop.clock.advance(2)
    service.wait(stopped)
    texts = [formatEvent(each) for each in events if each["log_namespace"] == "batcher.app.service"]
    assert texts == [
        "stopping: not ready from now on; all requests are taken for 2 s more (pre_stop_s)",
        "draining: no new connections; what was accepted has 30 s (drain_timeout_s)",
        "stopped after 2.0 s",
    ]


def test_a_start_that_failed_ends_without_lines_about_its_end(
    tmp_path: Path, events: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = MemoryService(tmp_path, "")
    broken: Deferred[None] = Deferred()
    monkeypatch.setattr(service.service.repository, "start", lambda: succeed([broken]))
    ready = listen(service.service.ready)
    service.begin()
    broken.errback(ModelLoadError("no disk"))
    service.wait(service.service.stopService())
    assert str(getattr(ready[0], "value", None)) == "no disk"
    assert [formatEvent(event) for event in events] == []


@pytest.mark.parametrize("strict", [True, False])
def test_why_a_model_failed_is_told_at_once_where_the_start_goes_on(
    tmp_path: Path, events: list[LogEvent], monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    service = MemoryService(tmp_path, f"strict_start: {str(strict).lower()}\n")
    broken: Deferred[None] = Deferred()
    slow: Deferred[None] = Deferred()
    monkeypatch.setattr(service.service.repository, "start", lambda: succeed([broken, slow]))
    ready = listen(service.service.ready)
    service.begin()
    broken.errback(ModelLoadError("no disk"))
    assert [formatEvent(event) for event in events] == ([] if strict else ["no disk"])
    assert ready == []
    slow.callback(None)
    assert [formatEvent(event) for event in events] == ([] if strict else ["no disk"])
    assert str(getattr(ready[0], "value", None)) == ("no disk" if strict else "None")
    service.end()
