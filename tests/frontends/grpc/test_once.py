"""`idempotency-key` and `cache-control` in the metadata of calls."""

from __future__ import annotations

import pytest

from batcher.config.model_settings import ModelOverrides
from batcher.errors import KeyReused
from tests.frontends.grpc.conftest import Context, Rpc, request, run
from tests.support.http import MemoryServer


def test_a_repetition_runs_once_and_another_request_needs_another_key() -> None:
    rpc = Rpc(MemoryServer(idempotency_ttl_s=60))

    async def test() -> None:
        context = Context(None, ("idempotency-key", '"a"'))
        first = await rpc.infer(request(1), context)
        assert context.trailing == (("idempotency-replayed", "false"),)
        second = await rpc.infer(request(1), context)
        assert context.trailing == (("idempotency-replayed", "true"),)
        assert first == second
        assert len(rpc.server.model.batches) == 1
        with pytest.raises(KeyReused):
            await rpc.infer(request(2), context)

    run(test)


def test_the_metadata_may_ask_for_the_model() -> None:
    rpc = Rpc(MemoryServer(models={"m": ModelOverrides(cache={})}))

    async def test() -> None:
        for entries in ((), (), (("cache-control", "no-cache"),)):
            context = Context(None, *entries)
            await rpc.infer(request(1), context)
            assert context.trailing == ()
        assert len(rpc.server.model.batches) == 2

    run(test)
