"""Whether the process is up, whether every model is ready, and the metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batcher.errors import ModelLoadError
from tests.frontends.endpoints.conftest import MORE
from tests.support.http import ROW, STACKS, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, checked, model_spec

Both = Callable[[MemoryServer, bytes], Answer]


def test_a_server_is_ready_when_every_model_is(both: Both) -> None:
    server = MemoryServer()
    worker = server.add(other := RecordingModel(model_spec(name="other")))
    assert both(server, ask("/readyz")).status == 503
    worker.loaded.callback(checked(other).loaded())
    answer = both(server, ask("/readyz"))
    assert (answer.status, answer.decoded()) == (200, {"ready": True})


def test_a_server_without_models_is_ready(both: Both) -> None:
    server = MemoryServer()
    server.server.lifecycle.forget(server.server.find("m"))
    assert both(server, ask("/readyz")).status == 200


def test_a_model_that_loads_is_named_with_what_it_does(both: Both) -> None:
    server = MemoryServer()
    server.add(RecordingModel(model_spec(name="other", version="3")))
    answer = both(server, ask("/readyz"))
    document = answer.decoded()
    assert answer.status == 503
    assert (document["code"], document["ready"]) == ("model_not_ready", False)
    assert list(document["waiting_for"]) == ["other/3"]
    assert document["waiting_for"]["other/3"].startswith("loading")
    assert "other/3" in document["error"]
    assert int(answer.header("retry-after") or 0) >= 1


@pytest.mark.parametrize(
    ("exposed", "state"), [(False, "failed"), (True, "failed: no such file: weights")]
)
def test_a_model_that_could_not_be_loaded_is_named_with_its_reason_where_clients_may_read_it(
    both: Both, exposed: bool, state: str
) -> None:
    server = MemoryServer(expose_errors=exposed)
    server.add(RecordingModel(model_spec(name="other"))).loaded.errback(
        ModelLoadError("no such file: weights")
    )
    document = both(server, ask("/readyz")).decoded()
    assert document["waiting_for"] == {"other/1": state}
    assert document["error"] == f"not ready: other/1 is {state}{'' if exposed else MORE}"


def test_what_a_load_does_is_told_without_the_reason_behind_it(both: Both) -> None:
    server = MemoryServer()
    server.add(RecordingModel(model_spec(name="other")))
    server.server.find("other").report(
        "not compiled: no compiler in /srv/bin. It is served as it is"
    )
    document = both(server, ask("/readyz")).decoded()
    assert document["waiting_for"] == {"other/1": "loading: not compiled"}
    assert "/srv" not in document["error"]
    server.server.find("other").report("loading")
    assert both(server, ask("/readyz")).decoded()["error"] == "not ready: other/1 is loading"


def test_a_server_that_announces_its_end_is_not_ready_and_answers_requests(both: Both) -> None:
    server = MemoryServer()
    server.server.announce_end()
    for path in ("/readyz", "/v2/health/ready"):
        assert both(server, ask(path)).status == 503
    assert both(server, ask("/predict", ROW)).status == 200


@pytest.mark.parametrize("step", ["drain", "stop"])
def test_a_server_that_is_being_stopped_is_not_ready(both: Both, step: str) -> None:
    server = MemoryServer()
    getattr(server.server, step)()
    answer = both(server, ask("/readyz"))
    assert (answer.status, answer.decoded()["code"], answer.decoded()["ready"]) == (
        503,
        "draining",
        False,
    )
    assert int(answer.header("retry-after") or 0) >= 1


def test_a_server_is_not_ready_in_messagepack_too(both: Both) -> None:
    server = MemoryServer()
    server.server.drain()
    answer = both(server, ask("/readyz", b"", ("Accept", "application/msgpack")))
    assert answer.header("content-type") == "application/msgpack"
    assert answer.decoded()["code"] == "draining"


def test_a_process_lives_whatever_its_models_do(both: Both) -> None:
    server = MemoryServer()
    server.add(RecordingModel(model_spec(name="other"))).loaded.errback(ModelLoadError("broken"))
    server.server.drain()
    answer = both(server, ask("/livez"))
    assert (answer.status, answer.decoded()) == (200, {"live": True})


def test_metrics_count_what_was_answered_by_model_route_and_status() -> None:
    server = MemoryServer()
    for stack in STACKS.values():
        stack(server, ask("/predict", ROW))
        stack(server, ask("/models/m/predict", ROW * 3))
        stack(server, ask("/models/m/predict", b"", method="POST"))
        stack(server, ask("/livez"))
        stack(server, ask("/nowhere"))
        text = stack(server, ask("/metrics")).body.decode()
    for line in (
        'batcher_requests_total{code="200",model="m",route="/predict"} 2.0',
        'batcher_requests_total{code="200",model="m",route="/models/{name}/predict"} 2.0',
        'batcher_requests_total{code="400",model="m",route="/models/{name}/predict"} 2.0',
        'batcher_requests_total{code="200",model="",route="/livez"} 2.0',
        'batcher_requests_total{code="404",model="",route=""} 2.0',
        'batcher_batch_size_count{model="m",version="1"} 4.0',
        'batcher_batch_size_sum{model="m",version="1"} 8.0',
        'batcher_queue_rows{model="m",version="1"} 0.0',
    ):
        assert line in text


@pytest.mark.parametrize("stack", STACKS)
def test_readyz_names_what_in_the_repository_is_left_out(stack: str) -> None:
    server = MemoryServer()
    server.server.left_out["n"] = "expected a file model.yaml"
    answer = STACKS[stack](server, ask("/readyz"))
    assert (answer.status, answer.decoded()) == (
        200,
        {"ready": True, "left_out": {"n": "expected a file model.yaml"}},
    )


@pytest.mark.parametrize("stack", STACKS)
def test_readyz_says_why_a_server_without_a_model_is_not_ready(stack: str) -> None:
    server = MemoryServer()
    for version in list(server.server):
        server.server.lifecycle.forget(version)
    server.server.left_out["n"] = "expected a file model.yaml"
    server.server.lifecycle.empty = "without a model"
    answer = STACKS[stack](server, ask("/readyz"))
    assert answer.status == 503
    assert answer.decoded() == {
        "error": "not ready: model repository is without a model",
        "code": "model_not_ready",
        "ready": False,
        "waiting_for": {"model repository": "without a model"},
        "left_out": {"n": "expected a file model.yaml"},
    }
