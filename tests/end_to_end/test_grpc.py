"""gRPC as clients speak it: Triton's own client, plain calls, and the end of the server.

Triton's client is blocking, asyncio and streaming.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from tests.end_to_end import http2
from tests.end_to_end.grpc_calls import SERVICE, code_of, infer_on, row, stream_on
from tests.end_to_end.processes import ROOT, Process, run, started, until, write_model
from tests.end_to_end.test_digits import direct
from tests.end_to_end.test_listening import certify

triton = pytest.importorskip("tritonclient.grpc", reason="extra test-clients")
aio = pytest.importorskip("tritonclient.grpc.aio", reason="extra test-clients")
utils = pytest.importorskip("tritonclient.utils", reason="extra test-clients")

IMAGES = np.load(ROOT / "examples" / "digits" / "heldout.npz")["images"][:5].astype("<f4")
SLOW = """
import time

class Model:
    def predict(self, inputs):
        time.sleep(float(inputs["x"].max()))
        return {"y": inputs["x"]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(
        tmp_path_factory.mktemp("grpc"), "--grpc-port", "0", "--set", "max_body_bytes=1MiB"
    ) as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Process]:
    """Run a server whose model sleeps as many seconds as the largest number of its input."""
    write_model(tmp_path / "models", "m", SLOW)
    arguments = (
        "--grpc-port",
        "0",
        "--set",
        f"model_repository={tmp_path / 'models'}",
        "--set",
        "drain_timeout_s=20",
    )
    with started(tmp_path, *arguments) as process:
        yield process


@pytest.fixture
def client(server: Process) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc_address) as found:
        yield found


def image(kind: Any = triton, images: Any = IMAGES) -> Any:
    tensor = kind.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    return tensor


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Process]:
    """Run a server with at most two connections and, over all connections, two calls at a time."""
    write_model(tmp_path / "models", "m", SLOW)
    repository = f"model_repository={tmp_path / 'models'}"
    arguments = ("--set", repository, "--set", "max_connections=2", "--grpc-port", "0")
    with started(tmp_path, *arguments) as process:
        yield process


def channels_to(server: Process, stack: ExitStack, count: int) -> list[grpc.Channel]:
    """Return `count` channels, each with a connection of its own."""
    alone = [("grpc.use_local_subchannel_pool", 1)]
    return [
        stack.enter_context(grpc.insecure_channel(server.grpc_address, alone)) for _ in range(count)
    ]


def test_calls_beyond_the_most_of_all_connections_together_are_refused_until_there_is_room(
    two: Process,
) -> None:
    with ExitStack() as stack:
        first, second = channels_to(two, stack, 2)
        sending: list[Queue[Any]] = [Queue(), Queue()]
        streams = [stream_on(first)(iter(messages.get, None)) for messages in sending]
        for stream, messages in zip(streams, sending, strict=True):
            messages.put(row(0.0))
            assert next(stream).infer_response.id == "0.0", "it is under way, and stays"
        assert code_of(infer_on(second).future(row(0.0))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        sending[0].put(None)
        until(lambda: code_of(infer_on(second).future(row(0.0))) is grpc.StatusCode.OK)
        sending[1].put(None)


def test_connections_beyond_the_most_are_closed_until_there_is_room(two: Process) -> None:
    with ExitStack() as stack:
        first, second, third = channels_to(two, stack, 3)
        for channel in (first, second):
            assert code_of(infer_on(channel).future(row(0.0))) is grpc.StatusCode.OK
        assert code_of(infer_on(third).future(row(0.0))) is grpc.StatusCode.UNAVAILABLE
        first.close()
        until(lambda: code_of(infer_on(third).future(row(0.0))) is grpc.StatusCode.OK)


def test_a_client_that_resets_its_calls_at_once_cannot_fill_the_memory_and_others_are_answered(
    server: Process,
) -> None:
    host, port = server.grpc_address.rsplit(":", 1)
    before = server.resident()
    with socket.create_connection((host, int(port)), timeout=60) as attacker:
        http2.begin(attacker)
        # The server refuses most of the calls, and its refusals have to be read.
        with http2.reading(attacker):
            for first in range(1, 100_000, 1000):
                attacker.sendall(
                    b"".join(
                        http2.call(stream, SERVICE, "ServerLive") + http2.reset(stream)
                        for stream in range(first, first + 1000, 2)
                    )
                )
            with grpc.insecure_channel(server.grpc_address) as channel:
                live = channel.unary_unary(f"{SERVICE}/ServerLive")
                assert live(b"", timeout=60) == pb.ServerLiveResponse(live=True).SerializeToString()
    # All 50,000 calls of this connection would be 250 MB.
    assert server.resident() - before < 64 << 20


def test_a_call_that_ends_the_librarys_server_does_not_close_the_port(tmp_path: Path) -> None:
    call = http2.call(1, SERVICE, "ServerLive").replace(b"Live", b"Li\xe9\xe9")
    with started(tmp_path, "--grpc-port", "0") as process:
        host, port = process.grpc_address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=60) as attacker:
            http2.begin(attacker)
            attacker.sendall(call)
            until(lambda: "ended by itself" in process.errors)
        with grpc.insecure_channel(process.grpc_address) as channel:
            live = channel.unary_unary(f"{SERVICE}/ServerLive")
            assert live(b"", timeout=60, wait_for_ready=True)
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_an_honest_client_with_many_calls_at_a_time_has_none_refused(slow: Process) -> None:
    async def ask() -> None:
        async with grpc.aio.insecure_channel(slow.grpc_address) as channel:
            infer = infer_on(channel)

            async def ask_again_and_again() -> None:
                for _ in range(6):
                    await infer(row(0.0), timeout=60)

            await asyncio.gather(*(ask_again_and_again() for _ in range(1000)))

    asyncio.run(ask())  # a call that is refused raises


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_the_blocking_client_gets_the_models_own_scores(client: Any, coding: str | None) -> None:
    result = client.infer(
        "digits",
        [image()],
        request_id="a",
        priority=1,
        timeout=10**7,
        client_timeout=30,
        compression_algorithm=coding,
    )
    assert np.allclose(result.as_numpy("scores"), direct(IMAGES), atol=1e-5)
    assert result.get_response().id == "a"


def test_the_best_classes_come_with_their_labels(client: Any) -> None:
    result = client.infer(
        "digits", [image()], outputs=[triton.InferRequestedOutput("scores", class_count=3)]
    )
    found = result.as_numpy("scores")
    assert found.shape == (5, 3)
    assert [int(text[0].split(b":")[1]) for text in found] == direct(IMAGES).argmax(axis=1).tolist()


def test_what_is_asked_before_inferring_is_answered(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata().name == "batcher"
    assert list(client.get_model_metadata("digits", "1").inputs[0].shape) == [-1, 1, 8, 8]
    assert client.get_model_config("digits").config.max_batch_size == 64
    assert client.get_model_repository_index().models[0].state == "READY"
    before = client.get_inference_statistics("digits").model_stats[0].inference_count
    client.infer("digits", [image()])
    assert client.get_inference_statistics("digits").model_stats[0].inference_count == before + 5


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda client: client.infer("other", [image()]), "NOT_FOUND"),
        (lambda client: client.infer("digits", [image()], model_version="7"), "NOT_FOUND"),
        (lambda client: client.infer("digits", []), "INVALID_ARGUMENT"),
        (
            lambda client: client.infer("digits", [image(images=IMAGES[:, :, :3])]),
            "INVALID_ARGUMENT",
        ),
        (
            lambda client: client.infer("digits", [image(images=np.zeros((5000, 1, 8, 8), "<f4"))]),
            "RESOURCE_EXHAUSTED",
        ),
        (lambda client: client.infer("digits", [image()], sequence_id=3), "UNIMPLEMENTED"),
        (lambda client: client.get_model_config("other"), "NOT_FOUND"),
        (lambda client: client.load_model("digits"), "PERMISSION_DENIED"),
        (lambda client: client.get_trace_settings(), "UNIMPLEMENTED"),
        (lambda client: client.get_system_shared_memory_status(), "UNIMPLEMENTED"),
    ],
)
def test_what_is_wrong_has_its_status_and_harms_nobody(client: Any, ask: Any, code: str) -> None:
    with pytest.raises(utils.InferenceServerException) as caught:
        ask(client)
    assert caught.value.status() == f"StatusCode.{code}"
    assert caught.value.message()
    assert client.is_server_ready()


def test_a_stream_answers_each_request_by_its_id_and_outlives_an_error(client: Any) -> None:
    answers: Queue[Any] = Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for index in range(5):
        name = "other" if index == 2 else "digits"
        client.async_stream_infer(
            name, [image(images=IMAGES[index : index + 1])], request_id=str(index)
        )
    found = [answers.get(timeout=30) for _ in range(5)]
    client.stop_stream()
    assert [index for index, (_, error) in enumerate(found) if error] == [2]
    for index, (result, error) in enumerate(found):
        if error:
            assert "'other'" in str(error)
        else:
            assert result.get_response().id == str(index)
            assert np.allclose(
                result.as_numpy("scores"), direct(IMAGES[index : index + 1]), atol=1e-5
            )


def test_the_asyncio_client_gets_each_its_own(server: Process) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(server.grpc_address) as found:
            tasks = [
                found.infer("digits", [image(aio, IMAGES[index % 5 : index % 5 + 1])])
                for index in range(40)
            ]
            for index, result in enumerate(await asyncio.gather(*tasks)):
                own = direct(IMAGES[index % 5 : index % 5 + 1])
                assert np.allclose(result.as_numpy("scores"), own, atol=1e-5)

    asyncio.run(ask())


def test_the_standard_health_service_answers(server: Process) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        assert (
            check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        )
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_deadlines_and_cancelled_calls_leave_the_queue(slow: Process) -> None:
    with grpc.insecure_channel(slow.grpc_address) as channel:
        infer = infer_on(channel)
        running = infer.future(row(1.0))
        until(lambda: slow.metric("batcher_in_flight_rows") == 1)
        with pytest.raises(grpc.RpcError) as caught:
            infer(row(0.0), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        leaving = infer.future(row(0.0))
        until(lambda: slow.metric("batcher_queue_rows") == 1)
        leaving.cancel()
        until(lambda: slow.metric("batcher_queue_rows") == 0)
        assert np.frombuffer(running.result(30).raw_output_contents[0], "<f4")[0] == 1
        message = row(0.0)
        message.parameters["timeout"].int64_param = 100_000
        held = infer.future(row(1.0))
        until(lambda: slow.metric("batcher_in_flight_rows") == 1)
        with pytest.raises(grpc.RpcError) as caught:
            infer(message)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        held.result(30)


def test_a_stop_answers_what_was_taken_and_ends_streams_and_watches(slow: Process) -> None:
    with grpc.insecure_channel(slow.grpc_address) as channel:
        sent: Queue[Any] = Queue()
        answers = stream_on(channel)(iter(sent.get, None))
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        unary = infer_on(channel).future(row(0.5))
        until(lambda: slow.metric("batcher_in_flight_rows") == 1)
        sent.put(row(0.25))
        until(
            lambda: slow.metric("batcher_queue_rows") + slow.metric("batcher_in_flight_rows") == 2
        )
        slow.signal(signal.SIGTERM)
        assert next(answers).infer_response.id == "0.25"
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, (
            "so that a client knows of what was not read"
        )
        assert unary.result(30).id == "0.5"
        assert [answer.status for answer in watch][-1] == health_pb2.HealthCheckResponse.NOT_SERVING
        sent.put(None)
        assert slow.wait(15) == 0
        assert "Traceback" not in slow.errors


def test_calls_of_a_model_that_hangs_end_with_the_drain_timeout_and_the_server_exits_with_0(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "models", "m", SLOW)
    arguments = (
        "--grpc-port",
        "0",
        "--set",
        f"model_repository={tmp_path / 'models'}",
        "--set",
        "drain_timeout_s=1",
    )
    with (
        started(tmp_path, *arguments) as process,
        grpc.insecure_channel(process.grpc_address) as channel,
    ):
        hung = [infer_on(channel).future(row(20.0)) for _ in range(3)]
        until(lambda: process.metric("batcher_in_flight_rows") >= 1)
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert all(call.exception() is not None for call in hung)


def test_more_calls_than_the_library_itself_would_hold_are_all_answered(server: Process) -> None:
    async def ask() -> None:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            message = pb.ModelInferRequest(
                model_name="digits",
                inputs=[{"name": "image", "datatype": "FP32", "shape": (1, 1, 8, 8)}],
                raw_input_contents=[IMAGES[0].tobytes()],
            )
            answers = await asyncio.gather(
                *(infer_on(channel)(message) for _ in range(2000)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {pb.ModelInferResponse}

    asyncio.run(ask())


def test_a_client_that_vanishes_leaves_nothing_behind(slow: Process) -> None:
    channel = grpc.insecure_channel(slow.grpc_address)
    sent: Queue[Any] = Queue()
    answers = stream_on(channel)(iter(sent.get, None))
    for _ in range(3):
        sent.put(row(0.2))
    until(lambda: slow.metric("batcher_queue_rows") + slow.metric("batcher_in_flight_rows") >= 1)
    channel.close()
    sent.put(None)
    assert not answers.is_active()
    until(lambda: slow.metric("batcher_queue_rows") + slow.metric("batcher_in_flight_rows") == 0)
    with grpc.insecure_channel(slow.grpc_address) as other:
        assert infer_on(other)(row(0.0)).id == "0.0"
    assert "Traceback" not in slow.errors


def test_bytes_that_are_no_message_are_a_status(server: Process) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(f"{SERVICE}/ModelInfer", None, None)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff" * 20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (answer,) = channel.stream_stream(
            f"{SERVICE}/ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString
        )(iter([b"\xff" * 20]))
        assert "ModelInferRequest" in answer.error_message
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"{SERVICE}/Nothing", None, None)(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_port_that_is_taken_ends_the_start_with_the_reason(server: Process) -> None:
    port = server.grpc_address.rpartition(":")[2]
    ended = run("serve", "--port", "0", "--grpc-port", port)
    assert ended.returncode == 1
    assert "grpc_port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_another_reactor_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"port: 0\ngrpc_port: 0\nmodel_repository: {ROOT / 'models'}\n")
    command = ("-m", "twisted", "--reactor", "epoll", "batcher", "--config", str(config))
    with started(tmp_path, command=command, ready=False) as process:
        process.wait(60)
        output = "\n".join(process.lines) + process.errors
        assert "grpc_port: expected Twisted's asyncio reactor" in output


def test_a_call_over_tls_is_answered(tmp_path: Path) -> None:
    certify(tmp_path, "server")
    certificate = tmp_path / "server.pem"
    arguments = ("--grpc-port", "0", "--set", f"tls_certificate={certificate}")
    with started(tmp_path, *arguments, ready=False) as process:
        until(lambda: "grpcs://" in "\n".join(process.lines), 60)
        found = re.search(r"grpcs://\S+:(\d+)", "\n".join(process.lines))
        assert found
        trusted = grpc.ssl_channel_credentials((tmp_path / "server.crt").read_bytes())
        with grpc.secure_channel(f"localhost:{found[1]}", trusted) as channel:
            live = channel.unary_unary(
                f"{SERVICE}/ServerLive", None, pb.ServerLiveResponse.FromString
            )
            assert live(b"").live


class TestReflection:
    """grpcurl and its kin ask by `v1` and, where the server lacks that, by `v1alpha`."""

    @pytest.fixture
    def database(self, server: Process) -> Iterator[Any]:
        with grpc.insecure_channel(server.grpc_address) as channel:
            yield ProtoReflectionDescriptorDatabase(channel)

    def test_every_service_is_listed(self, database: Any) -> None:
        assert sorted(database.get_services()) == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "inference.GRPCInferenceService",
        ]

    def test_a_client_that_knows_nothing_can_call_the_server(
        self, server: Process, database: Any
    ) -> None:
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.methods_by_name["ServerMetadata"]
        asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        with grpc.insecure_channel(server.grpc_address) as channel:
            call = channel.unary_unary(
                f"/{service.full_name}/{method.name}", asked.SerializeToString, answered.FromString
            )
            assert call(asked(), timeout=30).name == "batcher"
        health = pool.FindServiceByName("grpc.health.v1.Health")
        assert {"Check", "Watch"} <= set(health.methods_by_name)

    def test_it_is_there_by_its_new_name_too_and_an_open_stream_ends_with_the_server(
        self, tmp_path: Path
    ) -> None:
        with started(tmp_path, "--grpc-port", "0") as server:
            with grpc.insecure_channel(server.grpc_address) as channel:
                questions: Queue[Any] = Queue()
                answers = channel.stream_stream(
                    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
                )(iter(questions.get, None))
                questions.put(b"\x3a\x00")  # list_services
                assert b"inference.GRPCInferenceService" in next(answers)
                server.signal(signal.SIGTERM)
                assert list(answers) == []
                questions.put(None)
            assert server.wait(60) == 0


def test_old_connections_end_and_no_call_fails_by_it(tmp_path: Path) -> None:
    age = ("--set", "max_connection_age_s=0.3", "--set", "drain_timeout_s=5")
    with started(tmp_path, "--grpc-port", "0", *age) as server:
        host, port = server.grpc_address.rsplit(":", 1)
        with (
            grpc.insecure_channel(server.grpc_address) as channel,
            socket.create_connection((host, int(port)), timeout=60) as silent,
        ):
            silent.sendall(http2.PREFACE)
            health = HealthStub(channel)
            ended = False
            silent.settimeout(0.01)
            while not ended:
                serving = health_pb2.HealthCheckResponse.SERVING
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == serving
                with suppress(TimeoutError):
                    ended = not silent.recv(1 << 16)
