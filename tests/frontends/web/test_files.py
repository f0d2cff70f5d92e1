"""Files that come and go in pieces: as fast as the disk writes, and as fast as the client reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batcher.frontends.endpoints.openai_batches.upload import BEHIND_BYTES, FORM_BYTES
from batcher.frontends.web.file_sending import PIECE_BYTES
from tests.codecs.test_form_upload import form_of, part
from tests.frontends.endpoints.test_openai_batches import MOST, MemoryBatches, sent, upload
from tests.support.http import MemoryServer, over_connection


@pytest.fixture
def batches(tmp_path: Path) -> MemoryBatches:
    return MemoryBatches(tmp_path)


def test_a_client_waits_for_a_slow_disk_and_little_is_held(
    kind: str, batches: MemoryBatches
) -> None:
    server = MemoryServer(batches=batches)
    batches.waiting = []
    form = form_of(part("purpose", b"batch"), part("file", b"x" * (4 << 20), "a.jsonl"))
    request = upload(form)
    client = server.connect(kind)
    most = 0
    for start in range(0, len(request), 1 << 16):
        client.send(request[start : start + (1 << 16)])
        server.turn()
        most = max(most, server.front.buffers.nbytes)
    assert not client.reads
    assert most <= 2 * BEHIND_BYTES
    while not client.answers:
        batches.step()
        server.turn()
        assert server.front.buffers.nbytes <= 2 * BEHIND_BYTES
    (answer,) = client.answers
    assert (answer.status, answer.decoded()["bytes"]) == (200, 4 << 20)
    client.reset()
    server.check_nothing_is_left()


def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    kind: str, batches: MemoryBatches
) -> None:
    server = MemoryServer(batches=batches)
    client = server.connect(kind)
    form = form_of(part("purpose", b"batch"), part("file", b"x" * 10_000, "a.jsonl"))
    client.send(upload(form)[:-100])
    server.turn()
    assert [path.suffix for path in batches.folder.iterdir()] == [".part"]
    client.reset()
    server.turn()
    server.check_nothing_is_left()
    assert list(batches.folder.iterdir()) == []
    assert batches.kept == {}


def test_of_an_upload_that_grows_over_its_limit_nothing_is_left(
    kind: str, batches: MemoryBatches
) -> None:
    server = MemoryServer(batches=batches)
    batches.waiting = []
    form = form_of(part("purpose", b"batch"), part("file", b"x" * (MOST + FORM_BYTES), "a"))
    head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", upload(b""))
    client = server.connect(kind)
    client.send(head)
    for start in range(0, len(form), 1 << 16):
        piece = form[start : start + (1 << 16)]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        server.turn()
        while batches.waiting:
            batches.step()
            server.turn()
    (answer,) = client.answers
    assert answer.status == 413
    assert list(batches.folder.iterdir()) == []


def test_a_file_is_sent_as_fast_as_its_client_reads(kind: str, batches: MemoryBatches) -> None:
    server = MemoryServer(batches=batches)
    content = bytes(range(256)) * (PIECE_BYTES // 64)
    form = form_of(part("purpose", b"batch"), part("file", content, "a"))
    id = over_connection(server, upload(form)).decoded()["id"]
    client = server.connect(kind)
    client.stall()
    client.send(sent("GET", f"/v1/files/{id}/content"))
    server.turn()
    assert server.front.buffers.nbytes < 2 * PIECE_BYTES
    client.read()
    server.turn(20)
    (answer,) = client.answers
    assert answer.body == content
    client.stall()
    client.send(sent("GET", f"/v1/files/{id}/content"))
    server.turn()
    client.reset()
    server.turn()
    server.check_nothing_is_left()
