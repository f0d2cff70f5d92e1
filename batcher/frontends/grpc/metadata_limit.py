"""Calls with too many entries of metadata are refused before a handler is looked for.

The library (grpcio 1.85) limits metadata to 16 KiB for clients that have acknowledged its HTTP/2
settings. A client that does not acknowledge them may send 16 MiB in one head: 500,000 entries. The
library makes a tuple of the entries on the loop before any code of ours sees the call, and another
one each time that somebody asks for them. The first tuple cannot be avoided; `docs/security.md`
says what it costs. This handler, which stands before all others, keeps such a call from a handler
that asks again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from batcher.frontends.grpc.calls import Context

MAX_METADATA_ENTRIES = 512
"""Entries of a call's metadata.

The 16 KiB that clients with acknowledged settings may send hold 16,384 / 32 entries: the library
counts 32 bytes for each entry, besides its texts.
"""


class MetadataLimit:
    """A `grpc.GenericRpcHandler` of the calls over the limit, and of no others. Reactor thread."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler that refuses the call; None for a call within the limit."""
        count = len(handler_call_details.invocation_metadata)
        if count <= MAX_METADATA_ENTRIES:
            return None

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"expected at most {MAX_METADATA_ENTRIES} entries of metadata; got {count}",
            )

        return grpc.stream_stream_rpc_method_handler(refuse)
