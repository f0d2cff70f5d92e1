"""The calls that infer: answers, deadlines, cancellation, and streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from batcher.endpoints.oip.infer import SLOW_BYTES
from batcher.errors import DeadlineExceeded, InvalidInput, ModelError, UnknownModel
from batcher.rpc._generated import grpc_service_pb2 as pb
from tests.rpc.conftest import Context, Rpc, request, run
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, model_spec, tensor


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
        tasks = [asyncio.ensure_future(rpc.inference.infer(request(value), Context())) for value in range(8)]
        await rpc.settle()
        assert [values(task.result()) for task in tasks] == [[2 * value] for value in range(8)]

    run(test)
    assert rpc.server.model.sizes() == [8]


@pytest.mark.parametrize(
    ("message", "error"), [(request(name="other"), UnknownModel), (pb.ModelInferRequest(model_name="m"), InvalidInput)]
)
def test_what_is_wrong_fails_alone(rpc: Rpc, message: pb.ModelInferRequest, error: type[Exception]) -> None:
    async def test() -> None:
        with pytest.raises(error):
            await rpc.infer(message)
        assert values(await rpc.infer(request(2))) == [4]

    run(test)


def test_the_calls_deadline_is_the_requests(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(request(), Context(left=2.0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rpc.server.clock.advance(1.9)
        await asyncio.sleep(0)
        assert not task.done()
        rpc.server.clock.advance(0.2)
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await task

    run(test)


@pytest.mark.parametrize(("timeout", "left"), [(1_000_000, 5.0), (5_000_000, 1.0)], ids=["the parameter", "the call's"])
def test_the_earlier_of_two_deadlines_counts(rpc: Rpc, timeout: int, left: float) -> None:
    message = request()
    message.parameters["timeout"].int64_param = timeout

    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(message, Context(left)))
        await asyncio.sleep(0)
        rpc.server.clock.advance(1.1)
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await task

    run(test)


def test_a_call_that_is_cancelled_leaves_the_queue(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(request(), Context()))
        other = asyncio.ensure_future(rpc.inference.infer(request(3), Context()))
        await asyncio.sleep(0)
        scheduler = rpc.server.server.find("m").scheduler
        assert scheduler.queue_rows == 2
        task.cancel()
        await asyncio.sleep(0)
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
    text = b"t" * SLOW_BYTES
    message = pb.ModelInferRequest(
        model_name="m",
        inputs=[{"name": "x", "datatype": "BYTES", "shape": (1, 1)}],
        raw_input_contents=[len(text).to_bytes(4, "little") + text],
    )
    (sent,) = message.raw_input_contents

    async def test() -> None:
        task = asyncio.ensure_future(rpc.inference.infer(message, Context()))
        await asyncio.sleep(0)
        assert rpc.server.server.find("m").scheduler.queue_rows == 0, "its bytes are read first"
        await rpc.settle()
        assert task.result().raw_output_contents[0] == sent

    run(test)


async def sent(*messages: pb.ModelInferRequest, ends: bool = True) -> AsyncIterator[bytes]:
    for message in messages:
        yield message.SerializeToString()
    if not ends:
        await asyncio.Event().wait()


async def collect(rpc: Rpc, messages: AsyncIterator[Any], context: Context | None = None) -> list[Any]:
    return [answer async for answer in rpc.inference.stream(messages, context or Context())]


def test_a_stream_is_answered_in_order_and_its_requests_share_batches(rpc: Rpc) -> None:
    async def test() -> None:
        messages = sent(*(request(value, id=str(value)) for value in range(1, 4)))
        task = asyncio.ensure_future(collect(rpc, messages))
        await rpc.settle()
        answers = task.result()
        assert [answer.infer_response.id for answer in answers] == ["1", "2", "3"]
        assert [values(answer.infer_response) for answer in answers] == [[2], [4], [6]]
        assert [answer.error_message for answer in answers] == ["", "", ""]
        assert all(answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers)

    run(test)


def test_an_error_in_a_stream_goes_into_its_answer_and_the_stream_goes_on() -> None:
    def picky(inputs: Any) -> Any:
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"]}

    rpc = Rpc(MemoryServer(RecordingModel(predict=picky), defaults={"max_batch_size": 1}))

    async def test() -> None:
        bad = pb.ModelInferRequest(model_name="m", id="bad")
        messages = sent(request(1, id="a"), bad, request(name="other", id="b"), request(-1, id="c"), request(2, id="d"))
        task = asyncio.ensure_future(collect(rpc, messages))
        for _ in range(5):
            await rpc.settle()
        answers = task.result()
        assert [answer.infer_response.id for answer in answers] == ["a", "bad", "b", "c", "d"]
        said = [answer.error_message for answer in answers]
        assert (said[0], said[4]) == ("", "")
        assert "inputs" in said[1]
        assert "'other'" in said[2]
        assert said[3] == "the model failed on this request"

    run(test)
    statuses = [json.loads(line)["status"] for line in rpc.server.lines]
    assert sorted(statuses) == [200, 200, 400, 404, 500]


def test_a_stream_is_read_no_further_than_its_bound(rpc: Rpc) -> None:
    taken: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for count in range(100):
            taken.append(count)
            yield request(count).SerializeToString()

    async def test() -> None:
        answers = rpc.inference.stream(endless(), Context())
        first = asyncio.ensure_future(anext(answers))
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(taken) <= 4 + 2, "four wait, one is waited for, one is at hand"
        await rpc.settle()
        assert values((await first).infer_response) == [0]
        await answers.aclose()  # type: ignore[attr-defined]

    run(test)


def test_a_stream_whose_client_leaves_takes_its_requests_with_it(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(collect(rpc, sent(request(), request(), ends=False)))
        for _ in range(10):
            await asyncio.sleep(0)
        scheduler = rpc.server.server.find("m").scheduler
        assert scheduler.queue_rows == 2
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (task.cancelled(), scheduler.queue_rows) == (True, 0)

    run(test)


def test_a_stream_ends_with_the_answers_that_are_due_when_the_server_stops(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(collect(rpc, sent(request(1), request(2), ends=False)))
        for _ in range(10):
            await asyncio.sleep(0)
        rpc.stopping.set()
        await rpc.settle()
        assert [values(answer.infer_response) for answer in task.result()] == [[2], [4]]

    run(test)


def test_a_models_own_error_is_told_only_where_that_is_wanted() -> None:
    def broken(inputs: Any) -> Any:
        raise ValueError("secret")

    for exposed in (False, True):
        rpc = Rpc(MemoryServer(RecordingModel(predict=broken), expose_model_errors=exposed))

        async def test(rpc: Rpc = rpc, exposed: bool = exposed) -> None:
            task = asyncio.ensure_future(collect(rpc, sent(request())))
            await rpc.settle()
            assert ("secret" in task.result()[0].error_message) is exposed
            with pytest.raises(ModelError):
                await rpc.infer(request())

        run(test)
