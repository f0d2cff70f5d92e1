"""Requests that clients repeat run once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred

from batcher.config.model_settings import ModelOverrides
from batcher.config.quota import Quota
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.errors import DeadlineExceeded, KeyReused, ModelError
from batcher.serving.stages.cache import MAX_LOOP_BYTES
from batcher.serving.stages.once import POOL_S
from batcher.serving.stages.quotas import Quotas
from batcher.serving.stages.stage import GoOn, Stage
from tests.serving.stages.test_cache import Asked, ask, raising, run
from tests.support.http import MemoryServer
from tests.support.models import Predict, RecordingModel, double, model_spec, tensor

FREE = model_spec((tensor("x", shape=(-1,)),), (tensor("y", shape=(-1,)),))


def server(predict: Predict = double, spec: Any = None, **more: Any) -> MemoryServer:
    model = RecordingModel(spec or model_spec(), predict)
    own = ModelOverrides(isolate=False)
    return MemoryServer(model, models={"m": own}, **{"idempotency_ttl_s": 100, **more})


def test_a_repetition_gets_the_answer_that_was_kept() -> None:
    memory = server()
    first, second = ask(memory, 1.0, once="a"), ask(memory, 1.0, once="a")
    assert (first.origin, second.origin) == ("", "replayed")
    assert first.values == second.values == [2]
    assert second.result.version == first.result.version
    assert run(memory) == 1
    assert ask(memory, 1.0, once="b").origin == ""
    assert ask(memory, 1.0).origin == ""
    memory.check_nothing_is_left()


def test_a_repetition_waits_for_the_request_that_runs() -> None:
    memory = server()
    first, second = Asked(memory, 1.0, once="a"), Asked(memory, 1.0, once="a", priority=1)
    memory.work()
    assert (first.origin, second.origin) == ("", "replayed")
    assert run(memory) == 1
    memory.check_nothing_is_left()


def test_a_request_runs_on_when_its_client_has_left() -> None:
    memory = server()
    first = Asked(memory, 1.0, once="a")
    first.deferred.cancel()
    assert isinstance(first.result, CancelledError)
    memory.work()
    assert run(memory) == 1
    assert ask(memory, 1.0, once="a").origin == "replayed"
    memory.check_nothing_is_left()


@pytest.mark.parametrize("runs", [True, False])
def test_other_inputs_under_the_same_key_are_refused(runs: bool) -> None:
    memory = server()
    first = Asked(memory, 1.0, once="a")
    if not runs:
        memory.work()
    assert isinstance(Asked(memory, 2.0, once="a").result, KeyReused)
    memory.work()
    assert first.values == [2]
    assert run(memory) == 1


def test_a_key_counts_together_with_the_key_of_the_client() -> None:
    memory = server()
    ask(memory, 1.0, once="a", key="one")
    assert ask(memory, 2.0, once="a", key="other").origin == ""
    assert ask(memory, 1.0, once="a", key="one").origin == "replayed"


def test_an_answer_is_kept_for_its_time() -> None:
    memory = server()
    ask(memory, 1.0, once="a")
    memory.wait(99)
    assert ask(memory, 1.0, once="a").origin == "replayed"
    memory.wait(1)
    assert ask(memory, 2.0, once="a").origin == ""


def test_errors_are_not_kept() -> None:
    memory = server(raising)
    first, second = Asked(memory, 1.0, once="a"), Asked(memory, 1.0, once="a")
    memory.work()
    assert isinstance(first.result, ModelError)
    assert isinstance(second.result, ModelError)
    assert isinstance(ask(memory, 1.0, once="a").result, ModelError)
    assert run(memory) == 2


def test_each_attempt_has_its_own_deadline() -> None:
    memory = server()
    now = memory.clock.seconds()
    first = Asked(memory, 1.0, once="a", deadline=now + 5)
    second = Asked(memory, 1.0, once="a", deadline=now + 20)
    memory.hand_over()
    memory.wait(6)
    assert isinstance(first.result, DeadlineExceeded)
    memory.work()
    assert second.values == [2]
    memory.check_nothing_is_left()


@pytest.mark.parametrize("size", [MAX_LOOP_BYTES, 1 << 19])
def test_large_requests_and_answers_are_handled_on_the_pool(size: int) -> None:
    memory = server(double, FREE)
    inputs = {"x": np.ones((1, size), "<f4")}
    first, second = ask(memory, inputs, once="a"), ask(memory, inputs, once="a")
    assert (first.origin, second.origin) == ("", "replayed")
    assert first.values == second.values == [2]
    other = ask(memory, {"x": np.zeros((1, size), "<f4")}, once="a")
    assert isinstance(other.result, KeyReused)
    memory.check_nothing_is_left()


def test_texts_are_replayed() -> None:
    spec = model_spec((tensor("x", "BYTES", ()),), (tensor("y", "BYTES", ()),))
    memory = server(lambda inputs: {"y": inputs["x"]}, spec)
    for count in (3, 4000):
        inputs = {"x": np.array([b"text %d" % number for number in range(count)], object)}
        first, second = ask(memory, inputs, once=f"{count}"), ask(memory, inputs, once=f"{count}")
        assert first.result.outputs["y"].tolist() == second.result.outputs["y"].tolist()
        assert second.origin == "replayed"


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    memory = server(idempotency_max_bytes=10_000)
    for number in range(100):
        ask(memory, float(number), once=str(number))
    assert ask(memory, 99.0, once="99").origin == "replayed"
    assert ask(memory, 0.0, once="0").origin == ""


def test_a_change_of_quotas_forgets_nothing_and_a_change_of_the_time_does() -> None:
    memory = server()
    ask(memory, 1.0, once="a")
    memory.server.limit(Quotas({"*": Quota(rows_per_s=100)}))
    memory.server.name_stages.keep(100, memory.settings.idempotency_max_bytes)
    assert ask(memory, 1.0, once="a").origin == "replayed"
    memory.server.name_stages.keep(50, memory.settings.idempotency_max_bytes)
    assert ask(memory, 1.0, once="a").origin == ""
    memory.server.name_stages.keep(0, memory.settings.idempotency_max_bytes)
    assert ask(memory, 1.0, once="a").origin == ""


class Noting(Stage):
    """Notes the keys by which requests are repeated."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        self.seen.append(request.parameters.once)
        return go_on(request)


def test_what_stands_behind_sees_no_key() -> None:
    memory = server()
    noting = Noting()
    memory.server.find("m").set_version_stages([noting])
    ask(memory, 1.0, once="a")
    assert noting.seen == [""]


def test_versions_that_share_requests_answer_a_repetition_as_one() -> None:
    models = [
        RecordingModel(model_spec(version=str(number)), lambda x, n=number: {"y": x["x"] * n})
        for number in (3, 5)
    ]
    own = ModelOverrides(traffic={"3": 1, "5": 1})
    memory = MemoryServer(*models, models={"m": own}, idempotency_ttl_s=100)
    for number in range(20):
        first = ask(memory, 1.0, once=str(number))
        second = ask(memory, 1.0, once=str(number))
        assert first.values == second.values == [float(second.result.version)]
        assert first.result.version == second.result.version


def large(value: float) -> dict[str, Any]:
    """Return inputs that are hashed on the pool."""
    return {"x": np.full((1, MAX_LOOP_BYTES), value, "<f4")}


def test_a_version_that_drains_does_not_wait_for_what_comes_later() -> None:
    memory = server(double, FREE)
    (stage,) = memory.server.lifecycle.name_stages
    first = Asked(memory, large(1.0), once="a")
    drained: list[str] = []
    stage.drain().addCallback(lambda _: drained.append("first"))
    memory.turn()
    second = Asked(memory, large(2.0), once="b")
    stage.drain().addCallback(lambda _: drained.append("second"))
    first.deferred.cancel()
    assert drained == ["first"]
    second.deferred.cancel()
    assert drained == ["first", "second"]


def test_to_be_hashed_a_request_without_a_deadline_has_some_time() -> None:
    memory = server(double, FREE)
    pool, now = memory.server.pools.cpu, memory.clock.seconds()
    run_of_pool, deadlines = pool.run, []

    def noted(nbytes: int, deadline: float, *more: Any) -> Any:
        deadlines.append(deadline)
        return run_of_pool(nbytes, deadline, *more)

    pool.run = noted  # type: ignore[method-assign, assignment]
    Asked(memory, large(1.0), once="a")
    Asked(memory, large(1.0), once="b", deadline=now + 5)
    assert deadlines == [now + POOL_S, now + 5]
    memory.work()
