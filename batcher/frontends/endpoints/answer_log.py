"""What remains of an answered request: numbers for the metrics, and a line in the access log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from batcher.codecs.formats.json_text import to_json
from batcher.frontends.endpoints.call import VERSION_FIELD, Call, Fields
from batcher.serving.metrics import ServerMetrics

WriteLine = Callable[[bytes], object]

REPORT_INTERVAL_S = 10.0
"""Seconds between two tracebacks of lines that could not be written: every request has a line."""


class AnswerLog:
    """Counts answered requests, and writes the access log: one JSON object a line. Reactor thread.

    Attributes:
        seconds: the clock.
        write_line: takes each line of the access log; None if the settings want no access log.
        model_named: returns the name of the model that a client's text means, empty if there is no
            such model. A label of a metric must not be a text that clients make up.
    """

    def __init__(
        self,
        clock: IReactorTime,
        metrics: ServerMetrics,
        write_line: WriteLine | None = None,
        model_named: Callable[[str], str] = lambda text: "",
    ) -> None:
        """Count in `metrics`, and write lines by `write_line`."""
        self.seconds = clock.seconds
        self.model_named = model_named
        self.write_line = write_line
        self._metrics = metrics
        self._answers = metrics.answers
        self._log = Logger()
        self._next_report = 0.0

    def answered(
        self,
        route: str,
        model: str,
        status: int,
        began: float,
        call: Call | None = None,
        headers: Fields = (),
    ) -> None:
        """Count one request.

        Args:
            route: pattern of the route, empty where no route was found.
            model: name of the model that was asked for, empty where no model was.
            status: HTTP status of the answer.
            began: seconds on the clock at the first byte of the request.
            call: the request, as far as it was read.
            headers: of the answer; one may tell its version.
        """
        seconds = self.seconds() - began
        self._answers[model, route].observe(status, seconds)
        if self.write_line is not None:
            self._write(_described(_line(route, model, status, seconds), call, headers))

    def answered_rpc(
        self,
        route: str,
        model: str,
        status: int,
        began: float,
        peer: Callable[[], str],
        version: str = "",
    ) -> None:
        """Count one call of gRPC; arguments as of `answered`.

        `peer` returns the client's address, and is called for a line alone. `version` is what the
        answer tells of its version; empty where it tells none.
        """
        seconds = self.seconds() - began
        self._answers[model, route].observe(status, seconds)
        if self.write_line is not None:
            told = {"version": version} if version else {}
            self._write(_line(route, model, status, seconds) | told | {"peer": peer()})

    def _write(self, line: dict[str, object]) -> None:
        if self.write_line is not None:
            try:
                self.write_line(to_json(line))
            # The writer is an embedding program's: its error costs the line, never an answer.
            except Exception:
                self._line_failed()

    def _line_failed(self) -> None:
        """Count a line that could not be written, and log why, though not for every line."""
        self._metrics.dropped_lines["access_log"] += 1
        now = self.seconds()
        if now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL_S
            self._log.failure("a line of the access log could not be written")


def _line(route: str, model: str, status: int, seconds: float) -> dict[str, object]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "status": status,
        "route": route,
        "model": model,
        "ms": round(seconds * 1e3, 3),
    }


def _described(line: dict[str, object], call: Call | None, headers: Fields) -> dict[str, object]:
    """Return `line` with what was read of `call`, and the version that its answer tells."""
    if call is None:
        return line
    version = dict(headers).get(VERSION_FIELD)
    if version is not None:
        line["version"] = version.decode()
    head = call.head
    if head.method:  # of a refused request, only what was read is known
        line["method"] = head.method
    line |= {"path": head.path, "peer": call.peer, "bytes_in": call.size}
    if b"x-request-id" in head.headers:
        line["request_id"] = head.header(b"x-request-id")
    return line
