"""Stages in front of a queue: their order, their answers, and that a model without any has none."""

from __future__ import annotations

from typing import ClassVar

import pytest
from twisted.internet.defer import Deferred, succeed

from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.errors import QueueFull
from batcher.serving.stages.stage import GoOn, Stage, chain_of
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, rows


class Noted(Stage):
    """Notes its requests in `events` and hands them on with a changed priority."""

    def __init__(self, name: str, events: list[str], priority: int = 0) -> None:
        self.name = name
        self.events = events
        self.priority = priority
        self.drained: Deferred[None] = succeed(None)

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        self.events.append(f"{self.name} {request.rows} level {request.parameters.priority}")
        parameters = request.parameters._replace(priority=self.priority)
        changed = InferenceRequest(
            request.model, request.version, request.inputs, request.rows, parameters
        )
        return go_on(changed).addCallback(self._returned)

    def drain(self) -> Deferred[None]:
        self.events.append(f"{self.name} drains")
        return self.drained

    def _returned(self, response: InferenceResponse) -> InferenceResponse:
        self.events.append(f"{self.name} returns")
        return response


class Refusing(Stage):
    """Refuses everything at once."""

    reads_key: ClassVar[bool] = True

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        raise QueueFull("no")


def ask(memory: MemoryServer) -> list[object]:
    got: list[object] = []
    memory.server.infer("m", {"x": rows(1)}).addBoth(got.append)
    return got


def test_without_stages_there_is_no_chain() -> None:
    assert chain_of((), lambda request: Deferred()) is None


def test_the_stages_of_the_name_come_before_those_of_the_version() -> None:
    memory, events = MemoryServer(), []
    version = memory.server.find("m")
    version.set_version_stages([Noted("hooks", events, priority=1)])
    version.set_name_stages([Noted("quota", events, priority=2), Noted("log", events, priority=3)])
    got = ask(memory)
    assert events == ["quota 1 level 0", "log 1 level 2", "hooks 1 level 3"]
    memory.work()
    assert events[3:] == ["hooks returns", "log returns", "quota returns"]
    assert isinstance(got[0], InferenceResponse)


def test_stages_that_are_taken_away_are_passed_no_more() -> None:
    memory, events = MemoryServer(), []
    version = memory.server.find("m")
    version.set_name_stages([Noted("quota", events)])
    version.set_name_stages([])
    ask(memory)
    assert events == []


def test_a_stage_that_refuses_keeps_the_request_from_the_queue() -> None:
    model = RecordingModel()
    memory = MemoryServer(model)
    version = memory.server.find("m")
    version.set_version_stages([Refusing()])
    with pytest.raises(QueueFull):
        version.infer({"x": rows(1)})
    memory.work()
    assert version.scheduler.queue_rows == 0
    assert version.scheduler.pending == 0


def test_fronts_read_keys_only_where_a_stage_looks_at_them() -> None:
    version = MemoryServer().server.find("m")
    assert not version.reads_key
    version.set_version_stages([Refusing()])
    assert version.reads_key
    version.set_version_stages([])
    assert not version.reads_key


def test_a_version_drains_from_the_first_stage_to_the_queue() -> None:
    memory, events = MemoryServer(), []
    version = memory.server.find("m")
    first, second = Noted("first", events), Noted("second", events)
    first.drained = Deferred()
    version.set_name_stages([first])
    version.set_version_stages([second])
    drained: list[object] = []
    version.drain().addCallback(drained.append)
    assert events == ["first drains"]
    first.drained.callback(None)
    assert events == ["first drains", "second drains"]
    assert drained == [None]


def test_cancelling_behind_stages_gives_the_request_up() -> None:
    memory, events = MemoryServer(), []
    version = memory.server.find("m")
    version.set_name_stages([Noted("quota", events)])
    answer = version.infer({"x": rows(1)}, Parameters(priority=1))
    answer.addErrback(lambda failure: events.append(type(failure.value).__name__))
    assert version.scheduler.queue_rows == 1
    answer.cancel()
    assert version.scheduler.queue_rows == 0
    assert events == ["quota 1 level 1", "CancelledError"]
