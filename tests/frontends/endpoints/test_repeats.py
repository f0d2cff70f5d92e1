"""The same request again on the same connection, while the server changes.

A plan that was worked out once must not outlive the change.
"""

from __future__ import annotations

import numpy as np

from batcher.errors import ModelLoadError
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, checked, model_spec, rows, tensor
from tests.support.transports import Client

TWO_WHOLE = np.array([[7, 8]], "<i8")


def send(server: MemoryServer, client: Client, request: bytes) -> tuple[int, str]:
    """Send a request, and return status and body's code of its answer, or who answered."""
    count = len(client.answers)
    client.send(request)
    server.work()
    answers = client.answers
    assert len(answers) == count + 1
    return answers[-1].status, "" if answers[-1].status == 200 else answers[-1].decoded()["code"]


def test_a_model_that_becomes_ready_answers_the_request_that_it_could_not_answer_before() -> None:
    server = MemoryServer()
    worker = server.add(other := RecordingModel(model_spec(name="other")))
    client = server.connect("loop")
    request = ask("/models/other/predict", ROW)
    assert [send(server, client, request) for _ in range(2)] == [(503, "model_not_ready")] * 2
    worker.loaded.callback(checked(other).loaded())
    assert [send(server, client, request) for _ in range(2)] == [(200, "")] * 2


def test_a_newer_version_takes_over_as_soon_as_it_is_ready() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    unversioned, old = ask("/predict", ROW), ask("/models/m/versions/1/predict", ROW)
    assert send(server, client, unversioned) == (200, "")
    newer = RecordingModel(model_spec(version="2"), lambda inputs: {"y": inputs["x"] * 3})
    worker = server.add(newer)
    assert send(server, client, unversioned) == (200, "")
    assert newer.batches == []
    worker.loaded.callback(checked(newer).loaded())
    assert send(server, client, unversioned) == (200, "")
    assert newer.sizes() == [1]
    assert send(server, client, old) == (200, "")
    assert newer.sizes() == [1], "who names a version gets it"


def test_a_newer_version_that_fails_changes_nothing() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    request = ask("/predict", ROW)
    assert send(server, client, request) == (200, "")
    server.add(RecordingModel(model_spec(version="2"))).loaded.errback(ModelLoadError("broken"))
    assert send(server, client, request) == (200, "")
    assert server.model.sizes() == [1, 1]


def test_a_second_model_ends_the_route_without_a_name() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    request = ask("/predict", ROW)
    assert send(server, client, request) == (200, "")
    server.add(RecordingModel(model_spec(name="other")))
    assert send(server, client, request) == (404, "unknown_model")


def test_a_server_that_drains_or_stops_answers_no_repetition() -> None:
    for step in ("drain", "stop"):
        server = MemoryServer()
        client = server.connect("loop")
        request = ask("/predict", ROW)
        assert [send(server, client, request) for _ in range(2)] == [(200, "")] * 2
        getattr(server.server, step)()
        assert [send(server, client, request) for _ in range(2)] == [(503, "draining")] * 2
        assert server.model.sizes() == [1, 1]


def test_each_repetition_has_a_deadline_of_its_own() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    request = ask("/predict", ROW, ("X-Timeout-Ms", "1000"))
    assert send(server, client, request) == (200, "")
    server.wait(5)
    assert send(server, client, request) == (200, "")
    client.send(request)
    server.turn()
    server.wait(0.9)
    assert len(client.answers) == 2
    server.wait(0.2)
    assert [answer.status for answer in client.answers] == [200, 200, 504]


def test_repetitions_of_two_connections_do_not_mix() -> None:
    server = MemoryServer()
    first, second = server.connect("loop"), server.connect("twisted", peer=("192.0.2.8", 1))
    for value in (b"\x00\x00\x80?", b"\x00\x00\x00@", b"\x00\x00\x80?"):
        first.send(ask("/predict", value * 4))
        second.send(ask("/predict", value * 8))
        server.work()
    assert [len(answer.body) for answer in first.answers] == [16] * 3
    assert [len(answer.body) for answer in second.answers] == [32] * 3
    peers = [line.split(b'"peer":"')[1].split(b'"')[0] for line in server.lines]
    assert sorted(peers) == [b"192.0.2.7:50007"] * 3 + [b"192.0.2.8:1"] * 3


def test_an_answer_is_written_as_its_own_version_has_it_though_a_newer_one_came_meanwhile() -> None:
    server = MemoryServer(RecordingModel(model_spec(version="1")))
    newer = RecordingModel(
        model_spec(version="2", outputs=(tensor("z", "INT64", (2,)),)),
        lambda inputs: {"z": TWO_WHOLE},
    )
    worker = server.add(newer)
    early, late = server.connect("loop"), server.connect("loop")
    for client in (early, late):
        assert send(server, client, ask("/predict", ROW)) == (200, "")  # both have the same head
    early.send(ask("/predict", ROW))
    server.turn()
    worker.loaded.callback(checked(newer).loaded())
    late.send(ask("/predict", ROW))
    server.work()
    assert [answer.body for answer in early.answers] == [early.answers[0].body] * 2
    assert (late.answers[-1].status, late.answers[-1].body) == (200, TWO_WHOLE.tobytes())
    server.check_nothing_is_left()


def test_connections_share_what_is_known_of_a_head_and_no_answer_with_it() -> None:
    server = MemoryServer()
    clients = [server.connect("loop") for _ in range(6)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.send(ask("/predict", rows(10.0 * turn + number).tobytes()))
        server.work()
        expected = [(2 * rows(10.0 * turn + number)).tobytes() for number in range(6)]
        assert [client.answers[-1].body for client in clients] == expected
    server.check_nothing_is_left()
