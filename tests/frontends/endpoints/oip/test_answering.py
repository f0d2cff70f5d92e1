"""What an answer costs that is written beside the loop."""

from __future__ import annotations

from collections.abc import Callable
from sys import getsizeof
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred, succeed

from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.frontends.endpoints.oip.answering import write_slow


class Pool:
    """A servable that notes how many bytes a task of its pool holds on to."""

    def __init__(self) -> None:
        self.nbytes: list[int] = []

    def run_on_pool(
        self, nbytes: int, function: Callable[[], Any], parameters: Parameters
    ) -> Deferred[Any]:
        self.nbytes.append(nbytes)
        return succeed(function())


def test_texts_count_with_their_own_bytes_and_not_as_references_alone() -> None:
    texts = np.empty(3, object)
    texts[:] = [b"a" * 1000, b"", b"b" * 10]
    response = InferenceResponse("m", "1", {"y": texts}, 0.0, 0.0, 3)
    pool: Any = Pool()
    write_slow(response, pool, lambda _: None, NO_PARAMETERS)
    assert pool.nbytes == [3 * 8 + sum(map(getsizeof, texts))]
