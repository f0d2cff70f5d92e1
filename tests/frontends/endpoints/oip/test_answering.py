"""What an answer costs that is written beside the loop."""

from __future__ import annotations

import numpy as np

from batcher.core.request import NO_PARAMETERS, InferenceResponse
from batcher.frontends.endpoints.oip.answering import write_slow
from tests.support.http import MemoryServer


def test_texts_count_with_the_bytes_that_are_written() -> None:
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
    assert held == [3 * 8 + 1000 + 10]


def test_two_answers_of_many_short_texts_are_written_side_by_side() -> None:
    texts = np.full(1000, b"word", object)
    response = InferenceResponse("m", "1", {"y": texts}, 0.0, 0.0, 1000)
    # As objects they would be 45,000 bytes each.
    server = MemoryServer(cpu_pool_bytes=45_000).server
    servable = server.ready_model("m")
    written: list[int] = []

    def write_another(_: InferenceResponse) -> None:
        write_slow(response, servable, lambda _: written.append(2), NO_PARAMETERS)
        written.append(1)

    write_slow(response, servable, write_another, NO_PARAMETERS)
    assert sorted(written) == [1, 2]
