"""The routes of files and batches: what clients send and read, and whose it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from batcher.errors import Unavailable, UnknownJob
from batcher.frontends.endpoints.openai_batches.upload import FORM_BYTES
from batcher.serving.jobs.batches import AskedBatch, Content
from batcher.serving.jobs.held_files import UploadedFile
from batcher.serving.jobs.uploads import ArrivingFile, owner_of
from tests.codecs.test_form_upload import form_of, part
from tests.frontends.endpoints.conftest import Both
from tests.support.http import MemoryServer, ask, over_connection

MOST = 8 << 20
FORM = form_of(part("purpose", b"batch"), part("file", b"{}\n", "mine.jsonl"))
WANTED = {"endpoint": "/v1/embeddings", "input_file_id": "file-1", "completion_window": "24h"}
OFF = "files and batches need the setting `jobs.uploads` of the server"


class MemoryBatches:
    """Files and batches, where what the disk does waits until the test says so.

    Attributes:
        folder: of the files.
        kept: files by id.
        asked: batches that were begun, each with its owner.
        waiting: what the disk has to do; None does each at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[str, UploadedFile] = {}
        self.asked: list[tuple[str, AskedBatch]] = []
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] | None = None

    def run(self, nbytes: int, function: Any) -> Deferred[Any]:
        if self.waiting is None:
            return maybeDeferred(function)
        deferred: Deferred[Any] = Deferred()
        self.waiting.append((deferred, function))
        return deferred

    def step(self) -> None:
        """Let the disk do one thing."""
        assert self.waiting is not None
        deferred, function = self.waiting.pop(0)
        maybeDeferred(function).chainDeferred(deferred)

    def arrive(self, owner: str, declared: int) -> ArrivingFile:
        return ArrivingFile(self.folder, MOST, owner)

    def keep(self, arrived: ArrivingFile, filename: str, keep_s: float) -> UploadedFile:
        id = arrived.keep()
        return UploadedFile(id, arrived.owner, filename, arrived.nbytes, 5.0, keep_s)

    def add(self, file: UploadedFile) -> dict[str, Any]:
        self.kept[file.id] = file
        return {"id": file.id, "object": "file", "bytes": file.nbytes, "purpose": "batch"}

    def files(self, owner: str, page: Callable[[list[dict[str, Any]]], bytes]) -> Deferred[bytes]:
        found = [file for file in self.kept.values() if file.owner == owner]
        shown = [{"id": file.id, "purpose": "batch"} for file in found]
        return maybeDeferred(page, shown)

    def file(self, owner: str, id: str) -> Deferred[dict[str, Any]]:
        if id not in self.kept or self.kept[id].owner != owner:
            raise UnknownJob("no such file")
        return succeed({"id": id})

    def content(self, owner: str, id: str) -> Deferred[Content]:
        path = self.folder / f"{id}.openai.jsonl"
        size = self.kept[id].nbytes
        return self.file(owner, id).addCallback(lambda _: Content(path, size))

    def remove(self, owner: str, id: str) -> Deferred[Any]:
        return self.file(owner, id).addCallback(lambda _: self.kept.pop(id))

    def create(self, owner: str, asked: AskedBatch) -> Deferred[dict[str, Any]]:
        self.asked.append((owner, asked))
        return succeed(self.status(owner, f"batch_{len(self.asked)}"))

    def status(self, owner: str, id: str) -> dict[str, Any]:
        if (owner, id) not in [(each, f"batch_{n}") for n, (each, _) in enumerate(self.asked, 1)]:
            raise UnknownJob("no such batch")
        return {"id": id, "object": "batch"}

    def list(self, owner: str) -> list[dict[str, Any]]:
        ids = [f"batch_{n}" for n, (each, _) in enumerate(self.asked, 1) if each == owner]
        return [self.status(owner, id) for id in ids]

    def cancel(self, owner: str, id: str) -> Deferred[dict[str, Any]]:
        return succeed(self.status(owner, id) | {"status": "cancelled"})


@pytest.fixture
def batches(tmp_path: Path) -> MemoryBatches:
    return MemoryBatches(tmp_path)


def sent(method: str, path: str, body: bytes = b"", kind: str = "", key: str = "") -> bytes:
    headers = (("Authorization", f"Bearer {key}"),) if key else ()
    asked = ask(path, body, *headers, method=method, content_type=kind)
    return asked.replace(b"Host: batcher.test", b"Host: localhost")


def upload(form: bytes = FORM, key: str = "") -> bytes:
    return sent("POST", "/v1/files", form, "multipart/form-data; boundary=B", key)


def post(body: Any, key: str = "") -> bytes:
    return sent("POST", "/v1/batches", json.dumps(body).encode(), "application/json", key)


def test_a_file_is_uploaded_read_and_removed(both: Both, batches: MemoryBatches) -> None:
    server = MemoryServer(batches=batches)
    for over in (over_connection, both):
        id = over_connection(server, upload()).decoded()["id"]
        path = f"/v1/files/{id}"
        assert both(server, sent("GET", path)).decoded()["id"] == id
        assert both(server, sent("GET", f"{path}/content")).body == b"{}\n"
        assert both(server, sent("HEAD", f"{path}/content")).header("content-length") == "3"
        assert over is both or batches.kept[id].filename == "mine.jsonl"
    listed = both(server, sent("GET", "/v1/files?limit=1")).decoded()
    assert (listed["data"][0]["id"], listed["has_more"]) == (listed["last_id"], True)
    gone = over_connection(server, sent("DELETE", path)).decoded()
    assert gone == {"id": id, "object": "file", "deleted": True}
    missing = both(server, sent("GET", path))
    assert (missing.status, missing.decoded()["error"]["code"]) == (404, "not_found")


def test_a_site_that_has_read_the_body_takes_uploads_too(
    stack: Callable[[MemoryServer, bytes], Any], batches: MemoryBatches
) -> None:
    answer = stack(MemoryServer(batches=batches), upload())
    assert (answer.status, answer.decoded()["bytes"]) == (200, 3)


@pytest.mark.parametrize(
    ("form", "status", "message"),
    [
        (form_of(part("purpose", b"fine-tune"), part("file", b"1")), 400, "purpose: expected"),
        (form_of(part("purpose", b"batch")), 400, "file: expected a file"),
        (b"no form", 400, "expected multipart/form-data"),
        (form_of(part("purpose", b"batch"), part("file", b"1" * (MOST + 1))), 413, "at most"),
        (
            form_of(
                part("purpose", b"batch"), part("expires_after[seconds]", b"1"), part("file", b"1")
            ),
            400,
            "expires_after: expected",
        ),
    ],
    ids=range(5),
)
def test_what_is_no_upload_is_refused_and_leaves_nothing(
    batches: MemoryBatches, form: bytes, status: int, message: str
) -> None:
    answer = over_connection(MemoryServer(batches=batches), upload(form))
    assert answer.status == status
    assert message in answer.decoded()["error"]["message"]
    assert list(batches.folder.iterdir()) == []


def test_an_upload_over_its_limit_is_refused_by_its_head(batches: MemoryBatches) -> None:
    server = MemoryServer(batches=batches)
    head = re.sub(
        rb"Content-Length: \d+", b"Content-Length: %d" % (MOST + 2 * FORM_BYTES), upload()
    )
    assert over_connection(server, head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n").status == 413
    for kind in ("application/json", "multipart/form-data"):
        assert over_connection(server, sent("POST", "/v1/files", FORM, kind)).status in (400, 415)


def test_a_disk_that_fails_is_told_to_the_client(
    batches: MemoryBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise Unavailable("file: the server cannot store it: No space left", retry_after=0)

    monkeypatch.setattr(ArrivingFile, "write", fails)
    answer = over_connection(MemoryServer(batches=batches), upload())
    assert (answer.status, answer.header("x-should-retry")) == (503, "false")
    assert "No space left" in answer.decoded()["error"]["message"]


def test_batches_are_begun_listed_and_cancelled(both: Both, batches: MemoryBatches) -> None:
    server = MemoryServer(batches=batches)
    metadata = {"night": "1"}
    made = over_connection(server, post({**WANTED, "metadata": metadata}, "k")).decoded()
    assert batches.asked == [(owner_of("k"), AskedBatch("/v1/embeddings", "file-1", metadata))]
    path = f"/v1/batches/{made['id']}"
    assert both(server, sent("GET", path, key="k")).decoded() == made
    assert both(server, sent("GET", path, key="other")).status == 404
    assert both(server, sent("GET", "/v1/batches", key="other")).decoded()["data"] == []
    cancelled = over_connection(server, sent("POST", f"{path}/cancel", key="k")).decoded()
    assert cancelled["status"] == "cancelled"
    for _ in range(2):
        over_connection(server, post({**WANTED, "endpoint": "/models/m/predict"}, "k"))
    first = both(server, sent("GET", "/v1/batches?limit=2", key="k")).decoded()
    assert [each["id"] for each in first["data"]] == ["batch_1", "batch_2"]
    assert (first["has_more"], first["last_id"]) == (True, "batch_2")
    rest = both(server, sent("GET", "/v1/batches?after=batch_2", key="k")).decoded()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (["batch_3"], False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**WANTED, "endpoint": "/v1/responses"}, "endpoint"),
        ({**WANTED, "input_file_id": 3}, "input_file_id"),
        ({**WANTED, "completion_window": "1h"}, "completion_window"),
        ({**WANTED, "metadata": {"a": 1}}, "metadata"),
        ({**WANTED, "metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({**WANTED, "output_expires_after": {}}, None),
        ([], None),
    ],
    ids=range(7),
)
def test_what_is_no_batch_is_refused(
    both: Both, batches: MemoryBatches, body: Any, param: str | None
) -> None:
    answer = both(MemoryServer(batches=batches), post(body))
    assert (answer.status, answer.decoded()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "after=batch_9", "page=2", "after=" + "x" * 3000]
)
def test_a_page_that_is_not_there_is_refused(
    both: Both, batches: MemoryBatches, query: str
) -> None:
    answer = both(MemoryServer(batches=batches), sent("GET", f"/v1/batches?{query}"))
    assert answer.status == 400


def test_without_the_setting_every_route_says_what_the_operator_has_to_do(both: Both) -> None:
    server = MemoryServer()
    for request in (upload(), post(WANTED), sent("GET", "/v1/files"), sent("GET", "/v1/batches/1")):
        answer = both(server, request)
        assert (answer.status, answer.decoded()["error"]["message"]) == (403, OFF)


def test_pages_of_other_sites_may_not_ask(batches: MemoryBatches) -> None:
    server = MemoryServer(batches=batches)
    for request in (upload(), post(WANTED), sent("GET", "/v1/files")):
        foreign = request.replace(b"\r\n", b"\r\nOrigin: https://evil.example\r\n", 1)
        assert over_connection(server, foreign).status == 403
    assert list(batches.folder.iterdir()) == []
