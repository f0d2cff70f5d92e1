"""The least that grpc.aio can do on uvloop: each message is answered with itself, unparsed.

There is no batch and no model.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvloop
from grpc import aio


async def echo(message: bytes, context: Any) -> bytes:
    """Answer."""
    return message


async def serve(port: int) -> None:
    """Listen until the process is ended."""
    server = aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo, None, None)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve(int(sys.argv[1])))
