"""What an answer costs that is written beside the loop."""

from __future__ import annotations

from sys import getsizeof

import numpy as np

from batcher.core.request import NO_PARAMETERS, InferenceResponse
from batcher.frontends.endpoints.oip.answering import write_slow
from tests.support.http import MemoryServer


def test_texts_count_with_their_own_bytes_and_not_as_references_alone() -> None:
    texts = np.empty(3, object)
    texts[:] = [b"a" * 1000, b"", b"b" * 10]
    response = InferenceResponse("m", "1", {"y": texts}, 0.0, 0.0, 3)
    server = MemoryServer().server
    held: list[int] = []
    write_slow(
        response,
        server.ready_model("m"),
        lambda _: held.append(server.pools.cpu.nbytes),
        NO_PARAMETERS,
    )
    assert held == [3 * 8 + sum(map(getsizeof, texts))]
