"""Streams: order, errors, bounds, clients that leave or do not read, and the end of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from batcher.errors import ModelError
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.responses import WrittenAnswer
from batcher.frontends.grpc.streams import ANSWERS_BYTES, FIRST_REQUESTS, Streams, _Stream
from tests.frontends.grpc.conftest import Aborted, Context, Rpc, request, run, turn
from tests.frontends.grpc.test_inference import values
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel


async def sent(*messages: pb.ModelInferRequest, ends: bool = True) -> AsyncIterator[bytes]:
    for message in messages:
        yield message.SerializeToString()
    if not ends:
        await asyncio.Event().wait()


async def collect(
    rpc: Rpc, messages: AsyncIterator[bytes], context: Context | None = None
) -> list[Any]:
    """Return the answers of a stream."""
    context = context or Context()
    await rpc.streams.answer(messages, context)
    return context.written


def test_a_stream_is_answered_in_order_and_its_requests_share_batches(rpc: Rpc) -> None:
    async def test() -> None:
        messages = sent(*(request(value, id=str(value)) for value in range(1, 4)))
        task = asyncio.ensure_future(collect(rpc, messages))
        await rpc.settle()
        answers = task.result()
        assert [answer.infer_response.id for answer in answers] == ["1", "2", "3"]
        assert [values(answer.infer_response) for answer in answers] == [[2], [4], [6]]
        assert [answer.error_message for answer in answers] == ["", "", ""]
        assert all(
            answer.infer_response.parameters["triton_final_response"].bool_param
            for answer in answers
        )

    run(test)


def test_an_error_in_a_stream_goes_into_its_answer_and_the_stream_goes_on() -> None:
    def picky(inputs: Any) -> Any:
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"]}

    rpc = Rpc(MemoryServer(RecordingModel(predict=picky), defaults={"max_batch_size": 1}))

    async def test() -> None:
        bad = pb.ModelInferRequest(model_name="m", id="bad")
        messages = sent(
            request(1, id="a"),
            bad,
            request(name="other", id="b"),
            request(-1, id="c"),
            request(2, id="d"),
        )
        task = asyncio.ensure_future(collect(rpc, messages))
        for _ in range(5):
            await rpc.settle()
        answers = task.result()
        assert [answer.infer_response.id for answer in answers] == ["a", "bad", "b", "c", "d"]
        said = [answer.error_message for answer in answers]
        assert (said[0], said[4]) == ("", "")
        assert "inputs" in said[1]
        assert "'other'" in said[2]
        assert said[3].startswith("the model failed on this request (")

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
        context = Context()
        task = asyncio.ensure_future(rpc.streams.answer(endless(), context))
        await turn(50)
        assert len(taken) == 4
        await rpc.settle()
        assert values(context.written[0].infer_response) == [0]
        assert len(taken) <= len(context.written) + 4
        task.cancel()
        await asyncio.wait([task])

    run(test)


def test_a_stream_whose_client_leaves_takes_its_requests_with_it(rpc: Rpc) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(collect(rpc, sent(request(), request(), ends=False)))
        await turn(10)
        scheduler = rpc.server.server.find("m").scheduler
        assert scheduler.queue_rows == 2
        task.cancel()
        await turn(10)
        assert (task.cancelled(), scheduler.queue_rows) == (True, 0)

    run(test)


def test_a_stream_whose_client_leaves_while_it_is_full_leaves_nothing_in_the_queue(
    rpc: Rpc,
) -> None:
    async def test() -> None:
        leaving = collect(rpc, sent(*(request() for _ in range(20)), ends=False))
        task = asyncio.ensure_future(leaving)
        await turn(50)
        scheduler = rpc.server.server.find("m").scheduler
        assert scheduler.queue_rows == 4
        task.cancel()
        await turn(10)
        assert (task.cancelled(), scheduler.queue_rows, len(asyncio.all_tasks())) == (True, 0, 1)

    run(test)


def test_a_stream_ends_with_the_answers_that_are_due_and_a_status_when_the_server_stops(
    rpc: Rpc,
) -> None:
    async def test() -> None:
        context = Context()
        task = asyncio.ensure_future(
            rpc.streams.answer(sent(request(1), request(2), ends=False), context)
        )
        await turn(10)
        rpc.stopping.set()
        await rpc.settle()
        assert [values(answer.infer_response) for answer in context.written] == [[2], [4]]
        with pytest.raises(Aborted) as caught:
            await task
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE

    run(test)


def test_a_client_that_reads_no_answer_is_left() -> None:
    class Deaf(Context):
        async def write(self, answer: Any) -> None:
            await asyncio.Event().wait()

    rpc = Rpc(MemoryServer())
    rpc.streams = Streams(rpc.inference, rpc.calls, 4, 0.0, rpc.stopping)

    async def test() -> None:
        task = asyncio.ensure_future(
            rpc.streams.answer(sent(request(), request(), ends=False), Deaf())
        )
        await rpc.settle()
        with pytest.raises(Aborted) as caught:
            await task
        assert caught.value.code is grpc.StatusCode.ABORTED
        await turn(5)
        assert len(asyncio.all_tasks()) == 1

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


def test_a_stream_of_long_answers_has_few_of_them_on_their_way(rpc: Rpc) -> None:
    rpc.streams.max_requests = 100
    stream = _Stream(rpc.streams, sent(), Context())
    assert stream._most() == FIRST_REQUESTS
    for answers in range(1, 100):
        stream._learn(WrittenAnswer("m", "1", b"short"))
        assert stream._most() == min(FIRST_REQUESTS + answers, rpc.streams.max_requests)
    stream._learn(WrittenAnswer("m", "1", bytes(ANSWERS_BYTES // 2 + 1)))
    assert stream._most() == 1
    stream._learn(WrittenAnswer("m", "1", b"short"))
    assert stream._most() == 1
