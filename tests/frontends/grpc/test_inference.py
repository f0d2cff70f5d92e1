"""A request over gRPC: its answer, its deadline, its cancellation."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.codecs.joining import LARGE_BYTES
from batcher.codecs.oip.elements import to_elements
from batcher.errors import DeadlineExceeded, InvalidInput, UnknownModel
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from tests.frontends.grpc.conftest import Context, Rpc, request, run, turn
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, model_spec, tensor

LONG = LARGE_BYTES // 4


def values(response: pb.ModelInferResponse) -> list[float]:
    """Return the first element of each row of the only output."""
    assert [output.name for output in response.outputs] == ["y"]
    (raw,) = response.raw_output_contents
    return np.frombuffer(raw, "<f4").reshape(list(response.outputs[0].shape))[:, 0].tolist()


def test_a_request_is_answered_with_its_own_rows_as_bytes(rpc: Rpc) -> None:
    async def test() -> None:
        response = await rpc.infer(request(1, 5, id="i"))
        assert (response.model_name, response.model_version, response.id) == ("m", "1", "i")
        assert (response.outputs[0].datatype, values(response)) == ("FP32", [2, 10])
        assert not response.outputs[0].HasField("contents")

    run(test)


def test_requests_at_once_share_a_batch(rpc: Rpc) -> None:
    async def test() -> None:
        tasks = [
            asyncio.ensure_future(rpc.inference.infer(request(value), Context()))
            for value in range(8)
        ]
        await rpc.settle()
        assert [values(task.result()) for task in tasks] == [[2 * value] for value in range(8)]

    run(test)
    assert rpc.server.model.sizes() == [8]


@pytest.mark.parametrize(
    ("message", "error"),
    [(request(name="other"), UnknownModel), (pb.ModelInferRequest(model_name="m"), InvalidInput)],
)
def test_what_is_wrong_fails_alone(
    rpc: Rpc, message: pb.ModelInferRequest, error: type[Exception]
) -> None:
    async def test() -> None:
        with pytest.raises(error):
            await rpc.infer(message)
        assert values(await rpc.infer(request(2))) == [4]

    run(test)


def test_the_calls_deadline_is_the_requests(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(request(), Context(left=2.0)))
        await turn()
        await turn()
        rpc.server.clock.advance(1.9)
        await turn()
        assert not task.done()
        rpc.server.clock.advance(0.2)
        await turn()
        with pytest.raises(DeadlineExceeded):
            await task

    run(test)


@pytest.mark.parametrize(
    ("timeout", "left"), [(1_000_000, 5.0), (5_000_000, 1.0)], ids=["the parameter", "the call's"]
)
def test_the_earlier_of_two_deadlines_counts(rpc: Rpc, timeout: int, left: float) -> None:
    message = request()
    message.parameters["timeout"].int64_param = timeout

    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(message, Context(left)))
        await turn()
        rpc.server.clock.advance(1.1)
        await turn()
        with pytest.raises(DeadlineExceeded):
            await task

    run(test)


def test_a_call_that_is_cancelled_leaves_the_queue(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(request(), Context()))
        other = asyncio.ensure_future(rpc.inference.infer(request(3), Context()))
        await turn()
        scheduler = rpc.server.server.find("m").scheduler
        assert scheduler.queue_rows == 2
        task.cancel()
        await turn()
        assert (task.cancelled(), scheduler.queue_rows) == (True, 1)
        await rpc.settle()
        assert values(other.result()) == [6]

    run(test)
    assert rpc.server.model.sizes() == [1]


def test_a_priority_beyond_the_levels_is_the_default(rpc: Rpc) -> None:
    async def test() -> None:
        message = request()
        message.parameters["priority"].uint64_param = 99
        assert values(await rpc.infer(message)) == [2]

    run(test)


def test_many_texts_are_read_and_written_beside_the_loop() -> None:
    spec = model_spec((tensor("x", "BYTES", (1,)),), (tensor("y", "BYTES", (1,)),))
    rpc = Rpc(MemoryServer(RecordingModel(spec, lambda inputs: {"y": inputs["x"]})))
    text = b"t" * HEAVY_BYTES
    message = pb.ModelInferRequest(
        model_name="m",
        inputs=[{"name": "x", "datatype": "BYTES", "shape": (1, 1)}],
        raw_input_contents=[len(text).to_bytes(4, "little") + text],
    )
    (sent,) = message.raw_input_contents

    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(message, Context()))
        await turn()
        assert rpc.server.server.find("m").scheduler.queue_rows == 0, "its bytes are read first"
        await rpc.settle()
        answer = pb.ModelInferResponse.FromString(task.result().SerializeToString())
        assert answer.model_name == "m"
        assert answer.raw_output_contents[0] == sent

    run(test)


def test_a_long_answer_of_a_stream_is_written_beside_the_loop_and_flagged_as_final() -> None:
    spec = model_spec((tensor("x", "FP32", (1,)),), (tensor("y", "FP32", (LONG,)),))
    rpc = Rpc(MemoryServer(RecordingModel(spec, lambda _: {"y": np.ones((1, LONG), np.float32)})))
    message = pb.ModelInferRequest(
        model_name="m",
        inputs=[{"name": "x", "datatype": "FP32", "shape": (1, 1)}],
        raw_input_contents=[bytes(4)],
    )

    async def test() -> None:
        answering = rpc.streams.answer_one(message.SerializeToString(), Context())
        task = asyncio.ensure_future(answering)
        await rpc.settle()
        data = task.result().SerializeToString()
        answer = pb.ModelStreamInferResponse.FromString(data)
        assert not answer.error_message
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        assert answer.infer_response.outputs[0].shape == [1, LONG]
        assert len(answer.infer_response.raw_output_contents[0]) == LARGE_BYTES

    run(test)


@pytest.mark.parametrize("in_stream", [False, True])
def test_a_large_answer_in_texts_is_written_beside_the_loop(in_stream: bool) -> None:
    texts = np.empty((1, HEAVY_BYTES // 8), object)
    texts[:] = b"text"
    spec = model_spec((tensor("x", "FP32", (4,)),), (tensor("y", "BYTES", texts.shape[1:]),))
    rpc = Rpc(MemoryServer(RecordingModel(spec, lambda _: {"y": texts})))

    async def one() -> pb.ModelInferResponse:
        if not in_stream:
            answer = await rpc.inference.infer(request(), Context())
            return pb.ModelInferResponse.FromString(answer.SerializeToString())
        answer = await rpc.streams.answer_one(request().SerializeToString(), Context())
        whole = pb.ModelStreamInferResponse.FromString(answer.SerializeToString())
        assert not whole.error_message
        assert whole.infer_response.parameters["triton_final_response"].bool_param
        return whole.infer_response

    async def test() -> None:
        task = asyncio.ensure_future(one())
        await rpc.settle()
        assert task.result().raw_output_contents == [to_elements(texts)]
        assert task.result().outputs[0].shape == [1, HEAVY_BYTES // 8]

    run(test)


def test_classes_of_a_large_answer_are_those_of_a_small_one() -> None:
    spec = model_spec((tensor("x", "FP32", (4,)),), (tensor("y", "FP32", (LONG,)),))
    scores = np.arange(LONG, dtype=np.float32)[np.newaxis]
    rpc = Rpc(MemoryServer(RecordingModel(spec, lambda _: {"y": scores})))
    message = request()
    message.outputs.add(name="y").parameters["classification"].int64_param = 2

    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(message, Context()))
        await rpc.settle()
        answer = pb.ModelInferResponse.FromString(task.result().SerializeToString())
        best = np.array([f"{LONG - n}.000000:{LONG - n}".encode() for n in (1, 2)], object)
        assert answer.raw_output_contents == [to_elements(best)]
        assert (answer.outputs[0].datatype, answer.outputs[0].shape) == ("BYTES", [1, 2])

    run(test)


@pytest.mark.parametrize(("kind", "bulk"), [("uint64_param", 4), ("string_param", "bulk")])
def test_bulk_by_number_or_by_word_waits_for_others_to_fall_silent(
    rpc: Rpc, kind: str, bulk: object
) -> None:
    message = request()
    setattr(message.parameters["priority"], kind, bulk)

    async def test() -> None:
        assert values(await rpc.infer(request())) == [2]
        task = asyncio.ensure_future(rpc.inference.infer(message, Context()))
        await turn()
        assert rpc.server.hand_over() == 0
        rpc.server.clock.advance(1.0)
        await rpc.settle()
        assert values(await task) == [2]

    run(test)


def test_no_text_for_a_version_is_kept_but_its_number_and_none(rpc: Rpc) -> None:
    async def test() -> None:
        for version in ("", "1", *("0" * zeros + "1" for zeros in range(1, 50))):
            answer = await rpc.infer(request(1, model_version=version))
            assert answer.model_version == "1"

    run(test)
    # At most two entries for each version that serves.
    assert set(rpc.inference._found) == {("m", ""), ("m", "1")}
    assert len({id(reader) for _, reader in rpc.inference._found.values()}) == 1
