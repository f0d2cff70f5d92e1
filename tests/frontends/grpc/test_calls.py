"""How calls end, and what every other call of the service answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from pathlib import Path
from traceback import walk_tb
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

import batcher.errors
from batcher.config.settings import ServerSettings
from batcher.errors import (
    BatcherError,
    ConfigError,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    ModelLoadError,
)
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import MAX_STATUS_TEXT_BYTES, outcome, status_of
from batcher.frontends.grpc.front import RpcFront
from batcher.frontends.grpc.health import HealthService
from batcher.frontends.grpc.large import read_infer_message
from batcher.frontends.grpc.service import _METHODS, NOT_SERVED, Service
from tests.frontends.grpc.conftest import Aborted, Context, Rpc, request, run, turn
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, model_spec

OPEN = Disclosure(lambda: 0.0, errors=True, model_errors=True)
ERRORS = [
    kind
    for _, kind in inspect.getmembers(batcher.errors, inspect.isclass)
    if issubclass(kind, BatcherError)
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_its_text(kind: type[BatcherError]) -> None:
    code, text = status_of(kind("why"), OPEN)
    assert code is not grpc.StatusCode.OK
    assert text == "why"


def test_a_deadline_is_the_calls_or_the_protocols() -> None:
    assert (
        status_of(DeadlineExceeded("late"), OPEN, timed=True)[0]
        is grpc.StatusCode.DEADLINE_EXCEEDED
    )
    assert status_of(DeadlineExceeded("late"), OPEN, timed=False)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_long_text_is_cut_to_what_clients_take() -> None:
    assert len(status_of(ConfigError("é" * 9000), OPEN)[1].encode()) <= MAX_STATUS_TEXT_BYTES


def test_an_error_of_ours_alone_is_told(logged_errors: list[Any]) -> None:
    code, text = status_of(ZeroDivisionError("secret"), OPEN, b"my-id")
    assert code is grpc.StatusCode.INTERNAL
    assert text == "the server failed on this request (the server's log says more: request my-id)"
    logged_errors.clear()


def test_a_models_own_error_may_name_a_status_that_there_is_not() -> None:
    error = InvalidInput("dark")
    error.grpc_code = "TOO_DARK"
    assert status_of(error, OPEN) == (grpc.StatusCode.INTERNAL, "dark")


class Calls:
    """Calls of the service by their names."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server or MemoryServer()
        self.rpc = Rpc(self.server)
        self.handlers = Service(
            self.server.server, self.server.repository, self.server.router.disclosure
        ).handlers(self.rpc.calls)
        self.handlers |= [
            self.rpc.calls.unary("ModelInfer", self.rpc.inference.answer, read_infer_message)
        ]

    def __call__(self, name: str, /, **fields: Any) -> Any:
        """Return the answer of the call `name`; raises Aborted."""
        message = getattr(pb, f"{name}Request")(**fields)
        found: list[Any] = []

        async def test() -> None:
            task = asyncio.ensure_future(
                self.handlers[name].unary_unary(message.SerializeToString(), Context())
            )
            await self.rpc.settle()
            found.append(await task)

        run(test)
        return found[0]

    def refused(self, name: str, /, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """Return the status of the call `name`, which must fail."""
        with pytest.raises(Aborted) as caught:
            self(name, **fields)
        return caught.value.code, caught.value.text


@pytest.mark.parametrize("name", _METHODS)
def test_no_call_tells_why_a_model_could_not_be_loaded(name: str) -> None:
    call = Calls()
    call.server.add(RecordingModel(model_spec(name="late"))).loaded.errback(
        ModelLoadError("cannot read /srv/weights.pt")
    )
    fields = pb.DESCRIPTOR.message_types_by_name[f"{name}Request"].fields_by_name
    about = {field: "late" for field in ("name", "model_name") if field in fields}
    try:
        told = str(call(name, **about))
    except Aborted as err:
        told = err.text
    assert "weights" not in told


def test_the_error_that_the_library_keeps_holds_no_message() -> None:
    calls = Calls()
    with pytest.raises(Aborted) as caught:
        calls("ModelInfer", model_name="m" * 100_000)
    held: list[object] = []
    error: BaseException | None = caught.value
    while error is not None:
        for frame, _ in walk_tb(error.__traceback__):
            held += [value for value in frame.f_locals.values() if isinstance(value, bytes)]
        error = error.__context__
    assert [value for value in held if len(value) > 50_000] == []


def test_every_call_of_the_definition_is_there() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method.name for method in service.methods} == {
        *_METHODS,
        *NOT_SERVED,
        "ModelInfer",
        "ModelStreamInfer",
    }


def test_readiness_follows_the_models() -> None:
    call = Calls()
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ModelReady", name="m").ready
    assert call("ModelReady", name="m", version="1").ready
    assert not call("ModelReady", name="m", version="2").ready
    assert not call("ModelReady", name="other").ready
    worker = call.server.add(RecordingModel(model_spec(name="late")))
    assert not call("ServerReady").ready
    assert not call("ModelReady", name="late").ready
    worker.loaded.errback(ModelLoadError("broken"))
    assert not call("ServerReady").ready


def test_the_documents_are_those_of_the_rest_form() -> None:
    call = Calls()
    assert call("ServerMetadata").name == "batcher"
    assert "statistics" in call("ServerMetadata").extensions
    model = call("ModelMetadata", name="m")
    assert (model.name, list(model.versions), model.inputs[0].datatype) == ("m", ["1"], "FP32")
    assert list(model.inputs[0].shape) == [-1, 4]
    config = call("ModelConfig", name="m").config
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("m", 64, [4])
    assert config.dynamic_batching.priority_levels == 4


def test_statistics_count_what_ran() -> None:
    call = Calls()
    call("ModelInfer", **{field.name: value for field, value in request(1, 2).ListFields()})
    (found,) = call("ModelStatistics", name="m").model_stats
    assert (found.name, found.version, found.inference_count, found.execution_count) == (
        "m",
        "1",
        2,
        1,
    )
    assert found.inference_stats.success.count == 1
    assert [size.batch_size for size in found.batch_stats] == [2]
    assert len(call("ModelStatistics").model_stats) == 1


def test_the_repository_is_listed_and_not_changed_unless_clients_may() -> None:
    call = Calls()
    (entry,) = call("RepositoryIndex").models
    assert (entry.name, entry.version, entry.state) == ("m", "1", "READY")
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        code, text = call.refused(name, model_name="m")
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "model_control" in text


def test_a_model_is_unloaded_where_clients_may(tmp_path: Any) -> None:
    (tmp_path / "models").mkdir()
    call = Calls(MemoryServer(base=tmp_path, model_control="explicit"))
    call("RepositoryModelUnload", model_name="m")
    (entry,) = call("RepositoryIndex").models
    assert (entry.state, entry.reason) == ("UNAVAILABLE", "unloaded")
    assert list(call("RepositoryIndex", ready=True).models) == []
    assert call.refused("ModelMetadata", name="m")[0] is grpc.StatusCode.UNAVAILABLE
    assert call.refused("RepositoryModelLoad", model_name="other")[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", NOT_SERVED)
def test_what_is_not_served_is_unimplemented(name: str) -> None:
    assert Calls().refused(name) == (
        grpc.StatusCode.UNIMPLEMENTED,
        f"expected a part of the protocol that is served; got {name}",
    )


@pytest.mark.parametrize("name", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_what_is_not_there_is_not_found(name: str) -> None:
    assert Calls().refused(name, name="other")[0] is grpc.StatusCode.NOT_FOUND
    assert Calls().refused(name, name="m", version="9")[0] is grpc.StatusCode.NOT_FOUND


def test_calls_are_counted_and_logged() -> None:
    call = Calls()
    call("ServerLive")
    call.refused("ModelMetadata", name="other")
    lines = [json.loads(line) for line in call.server.lines]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/inference.GRPCInferenceService/ServerLive", 200),
        ("/inference.GRPCInferenceService/ModelMetadata", 404),
    ]
    assert [line["peer"] for line in lines] == ["127.0.0.1:5000"] * 2
    answered = [
        line
        for line in call.server.server.metrics.render().splitlines()
        if b"ModelMetadata" in line and b"404" in line
    ]
    assert answered[0].endswith(b" 1.0")


def test_a_call_that_was_cancelled_cancels_what_it_waits_for() -> None:
    cancelled: list[Deferred[None]] = []
    waited_for: Deferred[None] = Deferred(cancelled.append)

    async def test() -> None:
        task = asyncio.ensure_future(outcome(waited_for))
        await turn()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(test)
    assert cancelled == [waited_for]


class TestHealth:
    def check(self, health: HealthService, service: str = "") -> Any:
        return asyncio.run(health.check(health_pb2.HealthCheckRequest(service=service), Context()))

    def test_it_is_that_of_the_server(self) -> None:
        ready = False
        health = HealthService(lambda: ready, asyncio.Event())
        assert self.check(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        ready = True
        assert self.check(health).status == health_pb2.HealthCheckResponse.SERVING
        assert (
            self.check(health, "inference.GRPCInferenceService").status
            == health_pb2.HealthCheckResponse.SERVING
        )

    def test_another_service_is_not_found(self) -> None:
        health = HealthService(lambda: True, asyncio.Event())
        with pytest.raises(BatcherError) as caught:
            self.check(health, "other")
        assert status_of(caught.value, OPEN)[0] is grpc.StatusCode.NOT_FOUND

    def test_whoever_watches_hears_of_changes_until_the_end(self) -> None:
        ready, seen = True, []
        stopping = asyncio.Event()
        health = HealthService(lambda: ready, stopping)

        async def test() -> None:
            nonlocal ready

            async def watch(service: str) -> None:
                answers = health.watch(
                    health_pb2.HealthCheckRequest(service=service).SerializeToString(), Context()
                )
                seen.extend([(service, answer.status) async for answer in answers])

            tasks = [asyncio.ensure_future(watch(service)) for service in ("", "other")]
            await turn()
            health.changed()
            await turn()
            ready = False
            health.changed()
            await turn(3)
            stopping.set()
            health.changed()
            await asyncio.gather(*tasks)

        run(test)
        status = health_pb2.HealthCheckResponse
        assert [found for service, found in seen if not service] == [
            status.SERVING,
            status.NOT_SERVING,
            status.NOT_SERVING,
        ]
        assert [found for service, found in seen if service] == [
            status.SERVICE_UNKNOWN,
            status.NOT_SERVING,
        ]


def front(clock: Clock, **settings: Any) -> RpcFront:
    server = MemoryServer()
    answer_log = AnswerLog(clock, server.server.metrics)
    return RpcFront(
        server.server,
        server.repository,
        ServerSettings(grpc_port=0, **settings),
        Path("nowhere"),
        clock,
        answer_log,
    )


def test_another_reactor_than_asyncios_is_refused() -> None:
    clock, failed = Clock(), []
    front(clock).open().addErrback(failed.append)
    clock.advance(0)
    assert failed[0].check(ConfigError)
    assert "grpc_port: expected Twisted's asyncio reactor" in failed[0].getErrorMessage()


def test_what_never_opened_drains_at_once() -> None:
    done: list[Any] = []
    front(Clock()).drain().addCallback(done.append)
    front(Clock()).stop().addCallback(done.append)
    assert done == [None, None]


def test_a_stop_while_the_library_begins_leaves_no_port_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        clock, loop = Clock(), asyncio.get_running_loop()
        stopped = front(clock)
        begun, go_on, servers = asyncio.Event(), asyncio.Event(), []
        start = stopped._started

        async def started(*arguments: Any) -> Any:
            servers.append(await start(*arguments))
            begun.set()
            await go_on.wait()
            return servers[0]

        monkeypatch.setattr(stopped, "_started", started)
        opened = stopped.open().asFuture(loop)
        clock.advance(0)
        await begun.wait()
        port, inner = stopped.bound
        await stopped.stop().asFuture(loop)
        go_on.set()
        with pytest.raises(Draining, match="before it had started"):
            await opened
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)))
        assert not Path(str(inner)).exists()
        assert not servers[0]._server.is_running()

    run(test)


def test_the_messages_live_beside_another_clients_copy_of_them() -> None:
    other = pytest.importorskip("tritonclient.grpc.service_pb2", reason="extra test-clients")
    assert other.ModelInferRequest.DESCRIPTOR is not pb.ModelInferRequest.DESCRIPTOR
    message = request(1, id="i")
    assert (
        other.ModelInferRequest.FromString(message.SerializeToString()).SerializeToString()
        == message.SerializeToString()
    )
