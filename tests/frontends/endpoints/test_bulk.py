"""Bulk requests, by each name of theirs, wait until no other request has come for a while."""

from __future__ import annotations

import json

import pytest

from tests.support.http import ROW, MemoryServer, ask

TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}


def native(priority: object) -> bytes:
    return ask("/predict", ROW, ("X-Priority", str(priority)))


def oip(priority: object) -> bytes:
    body = json.dumps({"inputs": [TENSOR], "parameters": {"priority": priority}})
    return ask("/v2/models/m/infer", body.encode(), content_type="")


def is_held_back(request: bytes) -> bool:
    """Return whether `request`, sent right after another, waits for a second before it runs."""
    server = MemoryServer()
    client = server.connect("loop")
    client.send(ask("/predict", ROW))
    server.work()
    client.send(request)
    waits = server.hand_over() == 0
    if waits:
        server.wait(0.75)
        assert server.hand_over() == 0
        server.wait(0.5)
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200]
    return waits


@pytest.mark.parametrize("request_", [native(4), native("bulk"), oip(4), oip("bulk")])
def test_bulk_by_number_or_by_word_waits_for_others_to_fall_silent(request_: bytes) -> None:
    assert is_held_back(request_)


@pytest.mark.parametrize("request_", [native(3), oip(3), oip(5), oip(0)])
def test_no_other_priority_does(request_: bytes) -> None:
    assert not is_held_back(request_)
