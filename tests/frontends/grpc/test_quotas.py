"""Quotas over gRPC: the key in a call's metadata, and the status of a call beyond the quota."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from batcher.config.quota import Quota
from batcher.errors import InvalidInput, QuotaExceeded
from batcher.frontends.grpc.calls import status_of
from tests.frontends.grpc.conftest import Context, Rpc, request, run
from tests.frontends.grpc.test_streams import collect, sent
from tests.support.http import MemoryServer


@pytest.fixture
def rpc() -> Rpc:
    return Rpc(MemoryServer(quotas={"SECRET": Quota(rows_per_s=0.25, burst_rows=2)}))


@pytest.mark.parametrize(
    "metadata",
    [("x-api-key", "SECRET"), ("authorization", "Bearer SECRET")],
    ids=lambda pair: pair[0],
)
def test_the_metadata_name_the_key(rpc: Rpc, metadata: tuple[str, str]) -> None:
    async def test() -> None:
        await rpc.infer(request(1, 2), Context(None, ("x-other-bin", b"\xff"), metadata))
        with pytest.raises(QuotaExceeded) as refusal:
            await rpc.infer(request(1), Context(5.0, metadata))
        assert refusal.value.retry_after == 4
        assert (
            status_of(refusal.value, rpc.calls.disclosure)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        await rpc.infer(request(1, 2, 3), Context())

    run(test)


def test_two_keys_are_refused(rpc: Rpc) -> None:
    async def test() -> None:
        with pytest.raises(InvalidInput, match="expected one key"):
            await rpc.infer(
                request(1), Context(None, ("x-api-key", "SECRET"), ("x-api-key", "other"))
            )

    run(test)


def test_each_request_of_a_stream_is_charged_and_a_refusal_does_not_end_it(rpc: Rpc) -> None:
    async def test() -> None:
        messages = sent(request(1), request(1, 2), request(1))
        task = asyncio.ensure_future(collect(rpc, messages, Context(None, ("x-api-key", "SECRET"))))
        await rpc.settle()
        errors = [answer.error_message for answer in task.result()]
        assert errors == ["", "quota: expected at most 0.25 rows/s and 2 at once; got 2 more", ""]

    run(test)
