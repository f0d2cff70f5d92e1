"""The port itself, on a loop, without clients and without the library."""

from __future__ import annotations

import asyncio

from batcher.config.settings import ServerSettings
from batcher.frontends.grpc.connection_ends import GrpcLimits
from batcher.frontends.grpc.guarded_port import GuardedPort
from tests.frontends.grpc.conftest import run


def test_a_port_that_is_told_to_drain_after_its_end_looks_for_nobody() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        port = GuardedPort(ServerSettings(grpc_port=0), lambda: GrpcLimits(4, 5.0, 10.0), None)
        port.open()
        await port.close().asFuture(loop)
        await port.stop().asFuture(loop)
        await port.drain().asFuture(loop)
        assert port._looking is not None
        assert port._looking.cancelled()

    run(test)
