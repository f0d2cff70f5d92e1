"""Versions that share requests, and labels, over gRPC."""

from __future__ import annotations

import asyncio
import json

import pytest

from batcher.config.model_settings import ModelOverrides
from batcher.errors import ModelNotReady
from batcher.frontends.grpc.large import read_infer_message
from tests.frontends.grpc.conftest import Context, Rpc, request, run
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, model_spec


@pytest.fixture
def rpc() -> Rpc:
    models = [RecordingModel(model_spec(version=version)) for version in ("3", "5")]
    labels = {"stable": 3, "next": 9}
    own = ModelOverrides(traffic={"stable": 1, "5": 1}, labels=labels)
    return Rpc(MemoryServer(*models, models={"m": own}))


@pytest.mark.parametrize("name", ["x-route-key", "x-request-id"])
def test_the_metadata_choose_the_version_and_the_answer_tells_it(rpc: Rpc, name: str) -> None:
    async def test() -> None:
        found = {}
        for value in map(str, range(12)):
            context = Context(None, ("x-other-bin", b"\xff"), (name, value))
            found[value] = (await rpc.infer(request(1), context)).model_version
            assert (await rpc.infer(request(1), context)).model_version == found[value]
        assert set(found.values()) == {"3", "5"}

    run(test)


def test_the_id_of_the_message_chooses_where_no_metadata_do(rpc: Rpc) -> None:
    async def test() -> None:
        found = {}
        for value in map(str, range(12)):
            found[value] = (await rpc.infer(request(1, id=value))).model_version
            assert (await rpc.infer(request(1, id=value))).model_version == found[value]
        assert set(found.values()) == {"3", "5"}

    run(test)


def test_a_version_or_a_label_is_answered_by_that_version_before_and_after(rpc: Rpc) -> None:
    async def test() -> None:
        for value in map(str, range(8)):
            await rpc.infer(request(1, id=value))
            for named, number in (("3", "3"), ("5", "5"), ("stable", "3")):
                answer = await rpc.infer(request(1, id=value, model_version=named))
                assert answer.model_version == number

    run(test)


def test_a_label_whose_version_is_not_there_is_unavailable(rpc: Rpc) -> None:
    async def test() -> None:
        with pytest.raises(ModelNotReady, match="stands for version 9, which is not loaded yet"):
            await rpc.infer(request(1, model_version="next"))

    run(test)


def test_the_access_log_says_which_version_answered(rpc: Rpc) -> None:
    _, handler = rpc.calls.unary("ModelInfer", rpc.inference.answer, read_infer_message)

    async def test() -> None:
        for value in ("3", "5"):
            for answer in (handler.unary_unary, rpc.streams.answer_one):
                data = request(1, model_version=value).SerializeToString()
                task = asyncio.ensure_future(answer(data, Context()))
                await rpc.settle()
                await task
        await rpc.streams.answer_one(request(1, name="other").SerializeToString(), Context())

    run(test)
    lines = [json.loads(line) for line in rpc.server.lines]
    found = [(line["route"].rpartition("/")[2], line.get("version")) for line in lines]
    assert found == [
        ("ModelInfer", "3"),
        ("ModelStreamInfer", "3"),
        ("ModelInfer", "5"),
        ("ModelStreamInfer", "5"),
        ("ModelStreamInfer", None),
    ]
