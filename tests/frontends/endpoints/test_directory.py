"""The directory: what it takes, what it refuses, and how much of it."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import pytest
from twisted.internet.task import Clock

from batcher.app.directory.running import directory_front
from batcher.frontends.endpoints import directory
from batcher.frontends.endpoints.directory import MAX_ENTRY_BYTES
from tests.support.transports import connect

GOOD = {"address": "http://h:1", "weight": 3, "models": ["m"], "ttl_s": 10}


class Directory:
    """A directory on a clock."""

    def __init__(self, token: str = "") -> None:
        self.clock = Clock()
        self.front = directory_front(self.clock, token)

    def ask(
        self, method: str, path: str, document: Any = None, fields: str = ""
    ) -> tuple[int, Any]:
        body = b"" if document is None else json.dumps(document).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: d\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
        client = connect("loop", self.front, self.clock)
        client.send(head.encode() + body)
        self.clock.advance(0)
        (answer,), _ = client.parsed()
        return answer.status, json.loads(answer.body)


def test_services_are_apart_and_entries_end() -> None:
    found = Directory()
    assert found.ask("PUT", "/services/a/h:1", GOOD) == (200, {"listed": True})
    assert found.ask("GET", "/services/a")[1]["servers"] == [
        {"address": "http://h:1", "weight": 3.0, "models": ["m"]}
    ]
    assert found.ask("GET", "/services/b")[1] == {"servers": []}
    found.clock.advance(10)
    assert found.ask("GET", "/services/a")[1] == {"servers": []}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {**GOOD, "address": "ftp://h"},
        {**GOOD, "address": None},
        {**GOOD, "weight": -1},
        {**GOOD, "weight": True},
        {**GOOD, "models": "m"},
        {**GOOD, "models": [1]},
        {**GOOD, "ttl_s": 0},
        {**GOOD, "ttl_s": "10"},
        {**GOOD, "ttl_s": 1e9},
        {"address": "http://h:1"},
    ],
    ids=str,
)
def test_an_announcement_that_is_none_is_refused(wrong: Any) -> None:
    found = Directory()
    status, answer = found.ask("PUT", "/services/a/h:1", wrong)
    assert status == 400
    assert "expected" in answer["error"]
    assert found.ask("GET", "/services/a")[1] == {"servers": []}


def test_what_is_large_or_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MAX_SERVERS", 2)
    found = Directory()
    large = {**GOOD, "models": ["m" * MAX_ENTRY_BYTES]}
    assert found.ask("PUT", "/services/a/h:0", large)[0] in (400, 413)
    for number in (1, 2, 1):
        assert found.ask("PUT", f"/services/a/h:{number}", GOOD)[0] == 200
    assert found.ask("PUT", "/services/a/h:3", GOOD)[0] == 503
    found.clock.advance(10)
    assert found.ask("PUT", "/services/a/h:3", GOOD)[0] == 200


def test_announcements_take_no_more_memory_than_they_have_bytes() -> None:
    found = Directory()
    names = [f"{number:x}" for number in range(2000)]
    entry = {**GOOD, "models": names}
    nbytes = len(json.dumps(entry))
    assert nbytes < MAX_ENTRY_BYTES
    found.ask("PUT", "/services/a/first", entry)  # makes what is made once
    tracemalloc.start()
    try:
        for number in range(20):
            assert found.ask("PUT", f"/services/a/{number}", entry)[0] == 200
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20 * 2 * nbytes


def test_a_token_keeps_strangers_out() -> None:
    found = Directory("sesame")
    for method, path, document in [
        ("GET", "/services/a", None),
        ("PUT", "/services/a/h:1", GOOD),
        ("DELETE", "/services/a/h:1", None),
    ]:
        for fields in ("", "Authorization: Bearer sésame\r\n"):
            assert found.ask(method, path, document, fields)[0] == 403
        assert found.ask(method, path, document, "Authorization: Bearer sesame\r\n")[0] == 200
    assert found.ask("GET", "/livez") == (200, {"live": True})


def test_a_token_may_have_any_letters() -> None:
    fields = "Authorization: Bearer sésame\r\n"
    assert Directory("sésame").ask("GET", "/services/a", None, fields)[0] == 200
