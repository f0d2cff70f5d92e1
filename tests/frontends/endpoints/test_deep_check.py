"""`/readyz?deep=1`: whether models really answer, apart from the state that they are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import LogEvent

from batcher.config.quota import Quota
from batcher.errors import InvalidInput, ModelLoadError
from tests.frontends.endpoints.conftest import MORE
from tests.support.http import STACKS, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, double, model_spec, tensor

Stack = Callable[[MemoryServer, bytes], Answer]
DEEP = ask("/readyz?deep=1")


def broken(inputs: Any) -> Any:
    raise ValueError("out of order")


def named(name: str, predict: Any = double, **more: Any) -> RecordingModel:
    return RecordingModel(model_spec(name=name, **more), predict)


def test_every_version_answers_one_blank_row(stack: Stack) -> None:
    models = [RecordingModel(), named("other", version="1"), named("other", version="2")]
    answer = stack(MemoryServer(*models), DEEP)
    assert (answer.status, answer.decoded()["ready"]) == (200, True)
    assert set(answer.decoded()["seconds"]) == {"m/1", "other/1", "other/2"}
    assert all(seconds >= 0 for seconds in answer.decoded()["seconds"].values())
    assert answer.decoded()["skipped"] == {}
    for model in models:
        assert model.sizes() == [1]
        assert not model.batches[0]["x"].any()


def test_the_row_goes_through_the_hooks() -> None:
    model = RecordingModel()
    model.preprocess = lambda inputs: {"x": inputs["x"] + 7}
    assert STACKS["connection"](MemoryServer(model), DEEP).status == 200
    assert model.batches[0]["x"][0, 0] == 7


def test_a_model_that_raises_is_named_with_the_reason_and_others_are_still_asked(
    stack: Stack,
) -> None:
    answer = stack(MemoryServer(named("bad", broken), named("good")), DEEP)
    document = answer.decoded()
    assert (answer.status, document["code"], document["ready"]) == (503, "model_not_ready", False)
    assert document["failed"] == {"bad/1": f"model_error: the model failed on this request{MORE}"}
    assert list(document["seconds"]) == ["good/1"]
    text = f"not ready: bad/1: model_error: the model failed on this request{MORE}"
    assert document["error"] == text
    assert answer.header("retry-after") == "1"


def test_a_check_that_fails_with_any_exception_answers_and_so_does_the_next(
    stack: Stack, logged_errors: list[LogEvent]
) -> None:
    endless = named("endless", inputs=(tensor("x", shape=(1 << 44,)),))
    server = MemoryServer(endless, named("good"))
    for _ in range(2):
        document = stack(server, DEEP).decoded()
        assert document["failed"]["endless/1"].startswith("internal: the server failed")
        assert list(document["seconds"]) == ["good/1"]
    assert len(logged_errors) == 2
    logged_errors.clear()


def test_what_a_model_raised_is_told_where_that_is_wanted() -> None:
    answer = STACKS["connection"](
        MemoryServer(named("bad", broken), expose_model_errors=True), DEEP
    )
    assert "out of order" in answer.decoded()["failed"]["bad/1"]


@pytest.mark.parametrize(("timeout_ms", "seconds"), [(30_000, 5.0), (1000, 1.0)])
def test_a_model_that_hangs_is_named_at_the_deadline(timeout_ms: float, seconds: float) -> None:
    server = MemoryServer(defaults={"timeout_ms": timeout_ms})
    client = server.connect("loop")
    client.send(DEEP)
    server.turn()
    server.wait(seconds - 0.1)
    assert client.answers == []
    server.wait(0.2)
    (answer,) = client.answers
    assert answer.status == 503
    assert answer.decoded()["failed"] == {
        "m/1": "deadline_exceeded: the deadline passed while the request ran"
    }
    server.check_nothing_is_left()


def test_a_model_with_a_sample_answers_its_first_row(stack: Stack) -> None:
    free = named("free", inputs=(tensor("x", shape=(-1,)),), outputs=(tensor("y", shape=(-1,)),))
    free.sample = {"x": [[1, 2], [3, 4]]}
    answer = stack(MemoryServer(free), DEEP)
    assert (answer.status, list(answer.decoded()["seconds"])) == (200, ["free/1"])
    assert [batch["x"].tolist() for batch in free.batches] == [[[1, 2]]]


def test_a_model_without_a_blank_row_is_skipped_and_says_why(stack: Stack) -> None:
    free = named("free", inputs=(tensor("x", shape=(-1,)),), outputs=(tensor("y", shape=(-1,)),))
    sized = named(
        "sized",
        inputs=(tensor("x", shape=(-1,), warmup_shape=(3,)),),
        outputs=(tensor("y", shape=(-1,)),),
    )
    answer = stack(MemoryServer(free, sized), DEEP)
    assert answer.status == 200
    assert answer.decoded()["skipped"] == {
        "free/1": "no sample, and no warmup_shape for the free axes of x"
    }
    assert list(answer.decoded()["seconds"]) == ["sized/1"]
    assert (free.sizes(), sized.batches[0]["x"].shape) == ([], (1, 3))


def test_a_model_that_refuses_the_blank_row_has_answered_and_is_skipped() -> None:
    def refuse(inputs: Any) -> Any:
        raise InvalidInput("silence")

    model = RecordingModel()
    model.preprocess = refuse
    answer = STACKS["connection"](MemoryServer(model), DEEP)
    assert answer.status == 200
    assert answer.decoded()["skipped"] == {"m/1": "it refuses blank rows: silence"}


def test_a_model_that_makes_no_rows_of_the_blank_row_is_skipped_but_not_with_a_sample() -> None:
    def sounds(inputs: Any) -> Any:
        return {"x": inputs["x"][inputs["x"].any(axis=1)]}

    silent, sampled = named("silent"), named("sampled")
    sampled.sample = {"x": [[1.0] * 4]}
    silent.preprocess = sampled.preprocess = sounds
    answer = STACKS["connection"](MemoryServer(silent, sampled), DEEP)
    assert answer.status == 200
    assert answer.decoded()["skipped"] == {
        "silent/1": "no sample, and preprocess makes no rows of blank ones"
    }
    assert list(answer.decoded()["seconds"]) == ["sampled/1"]


@pytest.mark.parametrize("raised", [ValueError("zeros"), InvalidInput("zeros")])
@pytest.mark.parametrize("has_sample", [False, True])
def test_a_hook_that_crashes_fails_the_check_and_so_does_one_that_refuses_the_sample(
    raised: Exception, has_sample: bool
) -> None:
    def refuse(inputs: Any) -> Any:
        raise raised

    model = RecordingModel()
    model.preprocess = refuse
    model.sample = {"x": [[1.0] * 4]} if has_sample else None
    answer = STACKS["connection"](MemoryServer(model), DEEP)
    is_refused_blank = not has_sample and isinstance(raised, InvalidInput)
    assert answer.status == (200 if is_refused_blank else 503)


def test_those_who_ask_at_once_share_one_row() -> None:
    server = MemoryServer()
    clients = [server.connect("loop") for _ in range(20)]
    for client in clients:
        client.send(DEEP * 2)
        server.turn()
    server.work()
    assert server.model.sizes() == [1]
    answers = [answer for client in clients for answer in client.answers]
    assert [answer.status for answer in answers] == [200] * 40
    clients[0].send(DEEP)
    server.work()
    assert server.model.sizes() == [1, 1], "who asks later is told of a later row"


def test_who_leaves_does_not_end_the_check_of_others() -> None:
    server = MemoryServer()
    early, late = server.connect("loop"), server.connect("loop")
    for client in (early, late):
        client.send(DEEP)
        server.turn()
    early.reset()
    server.work()
    assert [answer.status for answer in late.answers] == [200]
    server.check_nothing_is_left()


def test_a_check_is_charged_to_no_quota(stack: Stack) -> None:
    server = MemoryServer(quotas={"*": Quota(rows_per_s=1e-3)})
    assert [stack(server, DEEP).status for _ in range(5)] == [200] * 5
    assert server.server.metrics.quota_rejected_rows == {}


def test_a_server_that_is_not_ready_runs_nothing(stack: Stack) -> None:
    server = MemoryServer()
    server.add(named("other")).loaded.errback(ModelLoadError("broken"))
    shallow, deep = stack(server, ask("/readyz")), stack(server, DEEP)
    assert (deep.status, deep.body) == (shallow.status, shallow.body)
    assert list(deep.decoded()["waiting_for"]) == ["other/1"]
    assert server.model.batches == []


def test_a_model_that_is_unloaded_is_not_asked(stack: Stack) -> None:
    server = MemoryServer(RecordingModel(), named("other"))
    server.server.unload(server.server.find("other"))
    server.work()
    answer = stack(server, DEEP)
    assert (answer.status, list(answer.decoded()["seconds"])) == (200, ["m/1"])


def test_a_model_that_the_server_need_not_have_is_not_asked(stack: Stack) -> None:
    server = MemoryServer(RecordingModel(), named("extra", broken))
    server.server.find("extra").required = False
    answer = stack(server, DEEP)
    assert (answer.status, list(answer.decoded()["seconds"])) == (200, ["m/1"])


def test_a_server_without_models_is_ready(stack: Stack) -> None:
    server = MemoryServer()
    server.server.lifecycle.forget(server.server.find("m"))
    assert stack(server, DEEP).decoded() == {"ready": True, "seconds": {}, "skipped": {}}


@pytest.mark.parametrize("query", ["", "?deep=0", "?other=1"])
def test_without_asking_for_it_nothing_runs(stack: Stack, query: str) -> None:
    server = MemoryServer()
    assert stack(server, ask(f"/readyz{query}")).decoded() == {"ready": True}
    assert server.model.batches == []


@pytest.mark.parametrize("value", ["", "yes", "2"])
def test_another_value_is_refused(stack: Stack, value: str) -> None:
    answer = stack(MemoryServer(), ask(f"/readyz?deep={value}"))
    assert (answer.status, answer.decoded()["code"]) == (400, "invalid_input")
    assert f"deep: expected 0 or 1; got {value!r}" in answer.decoded()["error"]


def test_a_cloud_s_platform_may_ask_too(stack: Stack) -> None:
    server = MemoryServer(sagemaker=True)
    assert stack(server, ask("/ping?deep=1")).status == 200
    assert server.model.sizes() == [1]


def test_it_is_documented(stack: Stack) -> None:
    operation = stack(MemoryServer(), ask("/openapi.json")).decoded()["paths"]["/readyz"]["get"]
    (deep,) = [entry for entry in operation["parameters"] if entry["in"] == "query"]
    assert (deep["name"], deep["schema"]) == ("deep", {"enum": ["0", "1"]})
