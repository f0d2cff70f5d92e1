"""The routes of batch jobs: what clients send and read, and who may."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from batcher.errors import Forbidden, InvalidInput, UnknownJob
from batcher.serving.jobs.entry import JobEntry, JobState, Wanted
from batcher.serving.jobs.writing import Progress
from tests.frontends.endpoints.conftest import Both
from tests.support.http import MemoryServer, ask, over_connection

WANTED = {"model": "m", "input": "/in/a.jsonl", "output": "/out/<a>.jsonl"}


class MemoryJobs:
    """Jobs that never run.

    Attributes:
        entries: by id.
    """

    def __init__(self) -> None:
        self.entries: dict[str, JobEntry] = {}

    def check_read(self) -> None:
        """All that were noted are read."""

    def create(self, wanted: Wanted) -> Deferred[dict[str, Any]]:
        if wanted.input.startswith("/etc"):
            return fail(Forbidden("input: not there"))
        entry = JobEntry(f"job-{len(self.entries)}", wanted, 10.0)
        self.entries[entry.id] = entry
        return succeed(entry.status(10.0))

    def list(self, most: int | None = None) -> list[dict[str, Any]]:
        return [entry.status(110.0) for entry in self.entries.values()][:most]

    def status(self, id: str) -> dict[str, Any]:
        if id not in self.entries:
            raise UnknownJob(f"no job {id}")
        return self.entries[id].status(110.0)

    def cancel(self, id: str) -> Deferred[dict[str, Any]]:
        self.status(id)
        self.entries[id].become(JobState.CANCELLED)
        return succeed(self.status(id))

    def remove(self, id: str) -> Deferred[None]:
        if self.status(id)["state"] == "queued":
            raise InvalidInput("cancel it first")
        del self.entries[id]
        return succeed(None)


def local(method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> bytes:
    asked = ask(path, body, *headers, method=method)
    return asked.replace(b"Host: batcher.test", b"Host: localhost")


def post(body: Any, *headers: tuple[str, str]) -> bytes:
    return local("POST", "/jobs", json.dumps(body).encode(), *headers)


def test_a_job_is_made_read_cancelled_and_forgotten() -> None:
    server = MemoryServer(batch_jobs=MemoryJobs())
    made = over_connection(server, post(WANTED)).decoded()
    assert (made["state"], made["input"], made["created"]) == ("queued", "/in/a.jsonl", 10.0)
    path = f"/jobs/{made['id']}"
    assert over_connection(server, local("GET", path)).decoded()["state"] == "queued"
    assert over_connection(server, local("DELETE", path)).status == 400
    cancelled = over_connection(server, local("POST", f"{path}/cancel", b"")).decoded()
    assert cancelled["state"] == "cancelled"
    assert over_connection(server, local("GET", "/jobs")).decoded()["jobs"][0]["id"] == made["id"]
    assert over_connection(server, local("DELETE", path)).decoded() == {"id": made["id"]}
    gone = over_connection(server, local("GET", path))
    assert (gone.status, gone.decoded()["code"]) == (404, "unknown_job")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({**WANTED, "model": ""}, "model: expected a text"),
        ({**WANTED, "input": 3}, "input: expected a text; got 3"),
        ({"model": "m", "input": "/in/a"}, "output: expected a text"),
        ({**WANTED, "outptu": "x"}, "body: expected model, version, input, output"),
        ({**WANTED, "csv_header": "maybe"}, "csv_header: expected present or absent"),
        ({**WANTED, "restart": "yes"}, "restart: expected true or false"),
        ([], "body: expected an object"),
    ],
    ids=range(7),
)
def test_what_is_no_job_is_refused(both: Both, body: Any, message: str) -> None:
    answer = both(MemoryServer(batch_jobs=MemoryJobs()), post(body))
    assert answer.status == 400
    error = answer.decoded()["error"]
    assert message in error
    assert "/predict" not in error  # what is advised for a request of inference


def test_places_and_pages_that_are_not_allowed_are_forbidden(both: Both) -> None:
    server = MemoryServer(batch_jobs=MemoryJobs())
    assert both(server, post({**WANTED, "input": "/etc/passwd"})).status == 403
    assert both(server, post(WANTED, ("Origin", "https://evil.example"))).status == 403


def test_without_the_setting_every_route_says_what_the_operator_has_to_do(both: Both) -> None:
    server = MemoryServer()
    for asked in (post(WANTED), local("GET", "/jobs"), local("GET", "/jobs/job-1")):
        answer = both(server, asked)
        assert answer.status == 403
        assert "the setting `jobs` of the server" in answer.decoded()["error"]


def test_the_page_of_models_shows_how_far_jobs_are(both: Both) -> None:
    jobs = MemoryJobs()
    jobs.create(Wanted("<m>", "3", "/in/a", "/out/a"))
    (entry,) = jobs.entries.values()
    entry.become(JobState.RUNNING)
    entry.began, entry.progress = 10.0, Progress(5000, 3, 0.25, "running")
    text = both(MemoryServer(batch_jobs=jobs), ask("/")).body.decode()
    assert "&lt;m&gt;/3" in text
    cells = "<td>running</td><td>25%</td><td>5,000</td><td>3</td><td>50</td><td>300 s</td>"
    assert cells in text
    assert "batch job" not in both(MemoryServer(), ask("/")).body.decode()
