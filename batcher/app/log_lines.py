"""The log on standard error: one format for whatever the server, and its libraries, have to say.

`log_format: text` is for people, and `log_format: json` for programs that collect logs, one object
a line:

    2026-11-28T21:05:12+0000 [batcher.app.service#info] stopped after 0.4 s
    {"time":"2026-11-28T21:05:12.031+00:00","level":"info","source":"batcher.app.service",
     "message":"stopped after 0.4 s"}

A line about one model also has `model`. A traceback is part of `message`. What Python's own
`logging` carries, from `warning` on, is written in the same format. What a model prints is not: it
goes out as the model wrote it. Lines of the access log have another shape, one JSON object a line
in either format, and go to standard output.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import IO, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogBeginner,
    textFileLogObserver,
)

from batcher.codecs.formats.json_text import to_json

_LEVELS = {
    logging.WARNING: LogLevel.warn,
    logging.ERROR: LogLevel.error,
    logging.CRITICAL: LogLevel.critical,
}
"""Levels of Python's `logging` to those of the log."""


class _StandardError:
    """Standard error as it is when a line is written: a moving line may stand in its place."""

    def write(self, text: str) -> None:
        """Write `text`."""
        sys.stderr.write(text)

    def flush(self) -> None:
        """Flush what was written."""
        sys.stderr.flush()


class _PythonLogging(logging.Handler):
    """Passes records of Python's `logging` on to the log. Any thread."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` on, with the traceback that it may have."""
        level = max((each for each in _LEVELS if each <= record.levelno), default=logging.WARNING)
        Logger(record.name).emit(_LEVELS[level], "{text}", text=self.format(record))


def begin_logging(log_format: str, all_of_process: bool = False) -> None:
    """Write the log to standard error: the server's own from `info` on, others' from `warn` on.

    With `all_of_process`, Python's `logging` goes into the log too. A program that holds a server
    has handlers of its own.
    """
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    levels.setLogLevelForNamespace("batcher", LogLevel.info)
    observer = FilteringLogObserver(_observer(log_format), [levels])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    if all_of_process:
        logging.getLogger().addHandler(_PythonLogging(logging.WARNING))


def json_line(level: str, source: str, message: str, model: str = "") -> str:
    """Return one line of the log as JSON, with the time that it is now."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "level": level, "source": source}
    more = {"model": model} if model else {}
    return to_json({**line, **more, "message": message}).decode() + "\n"


def _observer(log_format: str) -> ILogObserver:
    file = cast(IO[str], _StandardError())
    return FileLogObserver(file, _as_json) if log_format == "json" else textFileLogObserver(file)


def _as_json(event: LogEvent) -> str | None:
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not text:
        return None
    model = event.get("model")
    level, source = event.get("log_level", LogLevel.info), event.get("log_namespace", "")
    return json_line(level.name, source, text, model if isinstance(model, str) else "")
