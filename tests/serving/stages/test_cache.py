"""Answers that are kept, and equal requests that share one row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from batcher.config.model_settings import ModelOverrides
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Labels
from batcher.errors import (
    BatcherError,
    DeadlineExceeded,
    Draining,
    ModelError,
    PredictedLate,
    QueueFull,
)
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.stages.cache import MAX_LOOP_BYTES
from tests.support.http import MemoryServer
from tests.support.models import Predict, RecordingModel, double, model_spec, rows, tensor


def raising(_: Any) -> Any:
    raise RuntimeError("broken")


def server(
    predict: Predict = double, spec: Any = None, cache: Any = None, **own: Any
) -> MemoryServer:
    settings = ModelOverrides(**{"cache": {"ttl_s": 100, **(cache or {})}, "isolate": False, **own})
    model = RecordingModel(spec or model_spec(), predict)
    return MemoryServer(model, models={"m": settings})


class Asked:
    """One request and what becomes of it."""

    def __init__(self, memory: MemoryServer, *values: Any, **parameters: Any) -> None:
        inputs = values[0] if values and isinstance(values[0], dict) else {"x": rows(*values)}
        self.result: Any = None
        self.deferred = memory.server.infer("m", inputs, "", Parameters(**parameters))
        self.deferred.addBoth(self._ended)

    def _ended(self, result: Any) -> None:
        assert self.result is None
        self.result = result.value if isinstance(result, Failure) else result

    @property
    def origin(self) -> str:
        assert isinstance(self.result, InferenceResponse), self.result
        return self.result.origin

    @property
    def values(self) -> list[float]:
        assert isinstance(self.result, InferenceResponse), self.result
        return [float(row[0]) for row in self.result.outputs["y"]]


def ask(memory: MemoryServer, *values: Any, **parameters: Any) -> Asked:
    """Send one request, and run what is there."""
    asked = Asked(memory, *values, **parameters)
    memory.work()
    return asked


def counts(memory: MemoryServer) -> CacheCounts:
    return memory.server.metrics.caches.of("m", "1")


def run(memory: MemoryServer) -> int:
    """Return how many rows the model has run."""
    return sum(len(batch["x"]) for batch in memory.model.batches)


def test_an_equal_request_is_answered_without_the_model() -> None:
    memory = server()
    first, second, other = ask(memory, 1.0, 2.0), ask(memory, 1.0, 2.0), ask(memory, 3.0)
    assert (first.values, second.values, other.values) == ([2, 4], [2, 4], [6])
    assert (first.origin, second.origin, other.origin) == ("", "hit", "")
    assert run(memory) == 3
    assert counts(memory).outcomes == {"hit": 1, "joined": 0, "miss": 2, "skipped": 0}
    assert counts(memory).ratio == pytest.approx(1 / 3)
    memory.check_nothing_is_left()


def test_an_answer_is_kept_for_its_time() -> None:
    memory = server()
    ask(memory, 1.0)
    memory.wait(99)
    assert ask(memory, 1.0).origin == "hit"
    memory.wait(1)
    assert ask(memory, 1.0).origin == ""


def test_a_request_that_wants_the_model_gets_it_and_its_answer_is_not_kept() -> None:
    memory = server()
    ask(memory, 1.0)
    assert ask(memory, 1.0, fresh=True).origin == ""
    assert ask(memory, 2.0, fresh=True).origin == ""
    assert ask(memory, 2.0).origin == ""
    assert run(memory) == 4
    assert counts(memory).outcomes["skipped"] == 2


def test_a_version_that_is_loaded_anew_has_answered_nothing() -> None:
    memory = server()
    ask(memory, 1.0)
    (version,) = memory.server
    store = counts(memory).store
    assert store is not None
    assert len(store) == 1
    memory.server.unload(version)
    memory.turn()
    assert counts(memory).store is None
    assert len(store) == 0


@pytest.mark.parametrize("score", [0.5, 0.9])
def test_an_answer_that_the_model_is_not_sure_of_is_not_kept(score: float) -> None:
    memory = server(lambda inputs: {"y": inputs["x"]}, cache={"min_score": 0.8})
    ask(memory, 0.9, score)
    assert ask(memory, 0.9, score).origin == ("hit" if score > 0.8 else "")
    assert counts(memory).left_out == ({} if score > 0.8 else {"score": 2})


def test_logits_count_as_probabilities() -> None:
    labels = Labels(("a", "b", "c", "d"), logits=True)
    spec = model_spec(outputs=(tensor("z"), tensor("y", labels=labels)))
    memory = server(
        lambda inputs: {"z": inputs["x"], "y": inputs["x"] * [5, 0, 0, 0]},
        spec,
        cache={"min_score": 0.8},
    )
    # exp(5) is 148, so the best score is 148 / 151; with a factor of 0.1 it is 0.35
    for value, origin in ((1.0, "hit"), (0.1, "")):
        ask(memory, value)
        assert ask(memory, value).origin == origin


def test_a_model_without_scores_keeps_nothing_where_scores_are_asked_for() -> None:
    spec = model_spec((tensor("x", "INT32"),), (tensor("y", "INT32"),))
    memory = server(lambda inputs: {"y": inputs["x"]}, spec, cache={"min_score": 0.0})
    inputs = {"x": np.ones((1, 4), "<i4")}
    ask(memory, inputs)
    assert ask(memory, inputs).origin == "hit"
    memory = server(lambda inputs: {"y": inputs["x"]}, spec, cache={"min_score": 0.1})
    ask(memory, inputs)
    assert ask(memory, inputs).origin == ""


def test_errors_are_not_kept() -> None:
    memory = server(raising)
    assert isinstance(ask(memory, 1.0).result, ModelError)
    assert isinstance(ask(memory, 1.0).result, ModelError)
    assert run(memory) == 2
    memory.check_nothing_is_left()


def test_nobody_can_change_what_others_get() -> None:
    memory = server()
    first = ask(memory, 1.0)
    first.result.outputs["y"][:] = 7  # alone, a program may do as it likes
    second = ask(memory, 1.0)
    assert second.values == [2]
    with pytest.raises(ValueError, match="read-only"):
        second.result.outputs["y"][:] = 7


@pytest.mark.parametrize("size", [MAX_LOOP_BYTES // 4, 1 << 19])
def test_large_requests_and_answers_are_hashed_and_packed_on_the_pool(size: int) -> None:
    spec = model_spec((tensor("x", shape=(-1,)),), (tensor("y", shape=(-1,)),))
    memory = server(double, spec)
    inputs = {"x": np.ones((1, size), "<f4")}
    first, second = ask(memory, inputs), ask(memory, inputs)
    assert first.values == second.values == [2]
    assert second.origin == "hit"
    with pytest.raises(ValueError, match="read-only"):
        first.result.outputs["y"][:] = 7  # it was being packed
    memory.check_nothing_is_left()


def test_where_the_pool_is_full_requests_go_on_without_the_cache() -> None:
    spec = model_spec((tensor("x", shape=(-1,)),), (tensor("y", shape=(-1,)),))
    memory = server(double, spec)
    inputs = {"x": np.ones((1, MAX_LOOP_BYTES), "<f4")}
    pool = memory.server.pools.cpu

    def full(*_: Any) -> Any:
        raise QueueFull("full")

    pool.run = full  # type: ignore[method-assign]
    assert ask(memory, inputs).values == [2]
    assert ask(memory, inputs).values == [2]
    assert counts(memory).outcomes["skipped"] == 2


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    spec = model_spec((tensor("x", shape=(-1,)),), (tensor("y", shape=(-1,)),))
    memory = server(double, spec, cache={"max_bytes": "1MiB"})
    for size in (40_000, 1 << 16):
        inputs = {"x": np.ones((1, size), "<f4")}
        ask(memory, inputs)
        assert ask(memory, inputs).origin == ""
    assert counts(memory).left_out == {"large": 4}


def test_texts_are_kept() -> None:
    spec = model_spec((tensor("x", "BYTES", ()),), (tensor("y", "BYTES", ()),))
    assert 4000 * len(b"text 1000") < MAX_LOOP_BYTES < 4000 * (33 + 8)
    memory = server(lambda inputs: {"y": inputs["x"]}, spec)
    for count in (3, 4000):
        inputs = {"x": np.array([b"text %d" % number for number in range(count)], object)}
        first, second = ask(memory, inputs), ask(memory, inputs)
        assert first.result.outputs["y"].tolist() == second.result.outputs["y"].tolist()
        assert second.origin == "hit"
    memory.check_nothing_is_left()


def test_a_thousand_equal_requests_are_one_row() -> None:
    memory = server()
    asked = [Asked(memory, 1.0) for _ in range(1000)]
    memory.work()
    assert run(memory) == 1
    assert {tuple(each.values) for each in asked} == {(2.0,)}
    assert [each.origin for each in asked] == ["", *["joined"] * 999]
    with pytest.raises(ValueError, match="read-only"):
        asked[0].result.outputs["y"][:] = 7  # the others have the same
    memory.check_nothing_is_left()


def test_the_first_may_leave() -> None:
    memory = server()
    first, second, third = (Asked(memory, 1.0) for _ in range(3))
    first.deferred.cancel()
    memory.work()
    assert isinstance(first.result, CancelledError)
    assert (second.values, third.values) == ([2], [2])
    assert second.origin == "joined"
    assert run(memory) == 1
    memory.check_nothing_is_left()


def test_when_all_have_left_the_row_is_cancelled() -> None:
    memory = server()
    asked = [Asked(memory, 1.0) for _ in range(3)]
    for each in asked:
        each.deferred.cancel()
    assert memory.server.find("m").scheduler.pending == 0
    memory.work()
    assert run(memory) == 0
    assert ask(memory, 1.0).origin == ""
    memory.check_nothing_is_left()


def test_an_error_is_shared_and_each_has_one_of_its_own() -> None:
    memory = server(raising)
    asked = [Asked(memory, 1.0) for _ in range(3)]
    memory.work()
    assert run(memory) == 1
    assert all(isinstance(each.result, ModelError) for each in asked)
    assert len({id(each.result) for each in asked}) == 3
    memory.check_nothing_is_left()


def test_each_keeps_its_own_deadline() -> None:
    memory = server()
    now = memory.clock.seconds()
    first = Asked(memory, 1.0, deadline=now + 50)
    second = Asked(memory, 1.0, deadline=now + 5)
    third = Asked(memory, 1.0)
    memory.hand_over()
    memory.wait(6)
    assert isinstance(second.result, DeadlineExceeded)
    memory.work()
    assert (first.values, third.values) == ([2], [2])
    memory.check_nothing_is_left()


def test_where_the_row_is_late_those_with_more_time_run_one_of_their_own() -> None:
    memory = server()
    now = memory.clock.seconds()
    first, second = (Asked(memory, 1.0, deadline=now + 5) for _ in range(2))
    third, fourth = (Asked(memory, 1.0, deadline=now + left) for left in (20, 25))
    memory.hand_over()
    memory.wait(6)
    assert isinstance(first.result, DeadlineExceeded)
    assert isinstance(second.result, DeadlineExceeded)
    assert third.result is None
    memory.work()
    assert (third.values, fourth.values) == ([2], [2])
    memory.check_nothing_is_left()


def test_all_are_late_together() -> None:
    memory = server()
    now = memory.clock.seconds()
    asked = [Asked(memory, 1.0, deadline=now + left) for left in (5, 7, 6)]
    memory.hand_over()
    memory.wait(10)
    assert all(isinstance(each.result, (DeadlineExceeded, PredictedLate)) for each in asked)
    memory.work()
    memory.check_nothing_is_left()


def test_nobody_waits_behind_a_row_of_a_lower_level() -> None:
    memory = server()
    bulk = Asked(memory, 1.0, priority=4)
    joined = Asked(memory, 1.0, priority=4)
    high = Asked(memory, 1.0, priority=1)
    low = Asked(memory, 1.0, priority=3)
    assert memory.server.find("m").scheduler.pending == 2
    memory.work()
    assert [each.origin for each in (bulk, joined, high, low)] == ["", "joined", "", "joined"]
    memory.check_nothing_is_left()


def test_a_request_that_is_refused_at_once_leaves_nothing() -> None:
    memory = server(max_queue_rows=1)
    Asked(memory, 1.0)
    refused = Asked(memory, 2.0)
    assert isinstance(refused.result, QueueFull)
    assert Asked(memory, 1.0).result is None  # it joins, and needs no place
    memory.work()
    assert ask(memory, 2.0).values == [4]
    memory.check_nothing_is_left()


def test_a_version_that_drains_answers_those_that_wait() -> None:
    memory = server()
    asked = [Asked(memory, 1.0) for _ in range(3)]
    drained: list[None] = []
    memory.server.drain().addCallback(drained.append)
    assert not drained
    memory.work()
    assert drained == [None]
    assert {tuple(each.values) for each in asked} == {(2.0,)}


def test_an_answer_may_cancel_the_others() -> None:
    memory = server()
    first, second, third = (Asked(memory, 1.0) for _ in range(3))
    first.deferred.addCallback(lambda _: third.deferred.cancel())
    memory.work()
    assert second.values == [2]
    assert isinstance(third.result, CancelledError)
    memory.check_nothing_is_left()


def test_a_request_that_comes_when_its_time_is_over_fails_alone() -> None:
    memory = server()
    first = Asked(memory, 1.0)
    late = Asked(memory, 1.0, deadline=memory.clock.seconds() - 1)
    memory.work()
    assert first.values == [2]
    assert isinstance(late.result, BatcherError)


def test_the_check_of_readiness_runs_the_model() -> None:
    memory = server()
    for _ in range(2):
        deferred: Deferred[Any] = memory.server.infer(
            "m", {"x": rows(0.0)}, "1", Parameters(None, 1, None, fresh=True)
        )
        memory.work()
        assert deferred.called
    assert run(memory) == 2


def test_a_version_that_is_cut_short_while_a_request_is_hashed_refuses_it() -> None:
    spec = model_spec((tensor("x", shape=(-1,)),), (tensor("y", shape=(-1,)),))
    memory = server(double, spec)
    (version,) = memory.server
    asked = Asked(memory, {"x": np.ones((1, MAX_LOOP_BYTES), "<f4")})
    version.unload()
    version.cut_short()
    memory.work()
    assert isinstance(asked.result, Draining)


def test_an_answer_that_is_not_a_number_is_no_sure_one() -> None:
    memory = server(lambda inputs: {"y": inputs["x"] * np.nan}, cache={"min_score": 0.8})
    ask(memory, 1.0)
    assert ask(memory, 1.0).origin == ""
    assert counts(memory).left_out == {"score": 2}
