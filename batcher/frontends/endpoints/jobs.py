"""`/jobs`: batch jobs that the server runs in what other clients leave over.

The routes are there on every server. Without the setting `jobs` they say that the operator has to
allow jobs first. A job reads and writes files of the server's, so a web page of another origin may
not ask for one (`control_guard.py`).
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from batcher.codecs.content_coding import HEAVY_BYTES, plain_body, too_large
from batcher.codecs.formats.json_text import from_json
from batcher.codecs.heavy import is_heavy
from batcher.codecs.oip.members import object_of as members_of
from batcher.core.error_text import brief
from batcher.errors import Forbidden, InvalidInput, UnknownJob
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from batcher.frontends.endpoints.openapi.operations import (
    COUNT,
    FLAG,
    TEXT,
    list_of,
    object_of,
    operation_of,
)
from batcher.frontends.endpoints.routing import Route
from batcher.serving.jobs.entry import Wanted

MAX_TEXT_CHARS = 4096
"""Longest text of a job, which is kept with the job: what Linux takes for a path."""

_TEXTS = ("model", "version", "input", "output", "csv_header")
_REQUIRED = ("model", "input", "output")
_HEADERS = ("", "present", "absent")
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}

_JOB = object_of(
    ("id", "model", "state"),
    id=TEXT,
    model=TEXT,
    version=TEXT,
    state={"enum": ["queued", "running", "done", "failed", "cancelled"]},
    input=TEXT,
    output=TEXT,
    rows=COUNT,
    failed_rows=COUNT,
    done=_FRACTION,
    error=TEXT,
)
_OFF = {403: "The server takes no jobs, or not from a foreign page."}
_ONE = operation_of(_JOB, {**_OFF, 404: "No such job."})
_ALL = operation_of(object_of(("jobs",), jobs=list_of(_JOB)), _OFF)
_REMOVED = operation_of(
    object_of(("id",), id=TEXT), {**_OFF, 400: "The job has not ended.", 404: "No such job."}
)
_WANTED = object_of(
    _REQUIRED,
    model=TEXT,
    version=TEXT,
    input=TEXT,
    output=TEXT,
    csv_header={"enum": list(_HEADERS)},
    restart=FLAG,
)
_CREATED = operation_of(
    _JOB,
    {
        400: "A member is missing, or of another kind.",
        403: "The server takes no jobs, or these places are not listed for jobs.",
        503: "Too many jobs have not ended yet, or the server is being stopped.",
    },
) | {"requestBody": {"required": True, "content": {"application/json": {"schema": _WANTED}}}}


class Jobs(Protocol):
    """The jobs of a server. Reactor thread."""

    def check_read(self) -> None:
        """As `JobBoard.check_read`."""

    def create(self, wanted: Wanted) -> Deferred[dict[str, Any]]:
        """Begin a job; fires with its status, and fails with Forbidden or InvalidInput."""

    def list(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return the status of every job, or of the newest `most`, the newest first."""

    def status(self, id: str) -> dict[str, Any]:
        """Return the status of a job; raises UnknownJob."""

    def cancel(self, id: str) -> Deferred[dict[str, Any]]:
        """End a job, and fire with its status; raises UnknownJob."""

    def remove(self, id: str) -> Deferred[None]:
        """Forget a job that has ended; raises UnknownJob or InvalidInput."""


class JobRoutes:
    """`/jobs`, and below it. Reactor thread."""

    def __init__(self, jobs: Jobs | None, guard: ControlGuard) -> None:
        """Show and change `jobs`, for clients that `guard` lets through; None takes no jobs."""
        self._jobs = jobs
        self._guard = guard

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        one = "/jobs/{id}"
        return (
            Route("POST", "/jobs", self.create, "Begin a batch job.", _CREATED),
            Route("GET", "/jobs", self.all, "Every batch job, the newest first.", _ALL),
            Route("GET", one, self.one, "How far a batch job is.", _ONE),
            Route("POST", f"{one}/cancel", self.cancel, "End a batch job.", _ONE),
            Route("DELETE", one, self.remove, "Forget a batch job that has ended.", _REMOVED),
        )

    def create(self, call: Call) -> Deferred[Reply]:
        """Begin a job. Raises and fails as `Jobs.create`, and DecodingError. Reactor thread."""
        jobs = self._allowed(call)
        if is_heavy(call.body):
            raise too_large(HEAVY_BYTES, " of JSON for a route that infers nothing")
        body = members_of(from_json(plain_body(call.body)), "the body")
        return jobs.create(wanted_of(body)).addCallback(json_reply)

    def all(self, call: Call) -> Deferred[Reply]:
        """Answer the status of all jobs. Raises Forbidden, Unavailable. Reactor thread."""
        jobs = self._allowed(call)
        jobs.check_read()
        return json_reply({"jobs": [job for job in jobs.list() if _is_own(job["id"])]})

    def one(self, call: Call) -> Deferred[Reply]:
        """Answer the status of a job. Raises Forbidden, UnknownJob. Reactor thread."""
        return json_reply(self._allowed(call).status(_id(call)))

    def cancel(self, call: Call) -> Deferred[Reply]:
        """End a job, and answer its status. Raises Forbidden, UnknownJob. Reactor thread."""
        return self._allowed(call).cancel(_id(call)).addCallback(json_reply)

    def remove(self, call: Call) -> Deferred[Reply]:
        """Forget a job. Raises Forbidden, UnknownJob, InvalidInput. Reactor thread."""
        id = _id(call)
        removed = self._allowed(call).remove(id)
        return removed.addCallback(lambda _: json_reply({"id": id}))

    def _allowed(self, call: Call) -> Jobs:
        if self._jobs is None:
            raise Forbidden("batch jobs run where the setting `jobs` of the server lists places")
        self._guard.check(call.head.headers)
        return self._jobs


def _id(call: Call) -> str:
    """Return the id in a path. Raises UnknownJob."""
    id = call.head.arguments["id"]
    if not _is_own(id):
        raise UnknownJob(f"expected the id of a job; got {brief(id, 100)}")
    return id


def _is_own(id: str) -> bool:
    """Return whether `id` is that of a job; a batch is its key's, and has routes of its own."""
    return id.startswith("job-")


def wanted_of(body: dict[str, Any]) -> Wanted:
    """Return what a client asks for. Raises InvalidInput."""
    unknown = body.keys() - {*_TEXTS, "restart"}
    if unknown:
        expected = ", ".join((*_TEXTS, "restart"))
        raise InvalidInput(f"body: expected {expected}; got {brief(min(unknown))}")
    for name in _TEXTS:
        value = body.get(name, "")
        if not isinstance(value, str) or (name in _REQUIRED and not value):
            raise InvalidInput(f"{name}: expected a text; got {brief(value, 60)}")
        if len(value) > MAX_TEXT_CHARS:
            raise InvalidInput(
                f"{name}: expected at most {MAX_TEXT_CHARS} characters; got {len(value)}"
            )
    header, restart = body.get("csv_header", ""), body.get("restart", False)
    if header not in _HEADERS:
        raise InvalidInput(f"csv_header: expected present or absent; got {brief(header, 60)}")
    if not isinstance(restart, bool):
        raise InvalidInput(f"restart: expected true or false; got {brief(restart, 60)}")
    texts = {name: body.get(name, "") for name in _TEXTS}
    return Wanted(**texts, restart=restart)
