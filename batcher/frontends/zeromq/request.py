"""A kind of request, as the front sees it: known by its header, answered from its parts.

Clients send the same header again and again, with another id in front of it and other bytes behind
it. So what a header says is worked out once, as a `Known`, and kept by the header's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer

Parts = list[Buffer]
"""The parts of an answer: the header without the id, then the bytes of tensors or of a body."""

SMALL_BYTES: Final = 1 << 16
"""Bytes of all parts together up to which they are copied when they come.

Small parts share blocks of 8 KiB of the library's memory: a part of a hundred bytes that stayed
there would hold eighty times as many bytes as the queue counts. To copy 64 KiB takes 5 us.
"""


class Known(Protocol):
    """What one header says. Reactor thread.

    Attributes:
        is_small: whether the parts behind the header are few bytes, which are copied out of the
            library's memory; others stay there while they are used.
    """

    @property
    def is_small(self) -> bool:
        """See the class."""

    @property
    def is_over(self) -> bool:
        """Whether models have changed since, so that the header has to be read again."""

    def answer(self, parts: Sequence[Buffer], began: float, address: str) -> Deferred[Parts]:
        """Answer one request.

        Every error is an answer. The Deferred fails with CancelledError alone, and then the request
        is counted as one whose client has left.

        Args:
            parts: what came behind the header.
            began: when the message came, in seconds on the clock.
            address: where the client is, as an address of IP; empty where it has none.
        """
