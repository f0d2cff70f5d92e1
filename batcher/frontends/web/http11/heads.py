"""Heads that clients send again and again, known to all connections of a server.

Clients of one kind send the same head, byte for byte. What is worked out about such a head once
(route, model, formats) is then true for all of them. One copy of the head stays in the processor's
cache, where one copy for each connection would not.
"""

from __future__ import annotations

from batcher.core.bounded_cache import BoundedCache
from batcher.frontends.web.http11.messages import RequestHead

MAX_KNOWN_BYTES = 8 << 20
"""Bytes of the heads that are known, with all that is worked out from them: some 700 heads as
usual clients send them. Clients that send a new head each time only make the others be read anew.
"""

MAX_KEPT_HEAD_BYTES = 2048
"""Bytes of the largest head that is kept."""


def size_of_head(data: bytes, head: RequestHead) -> int:
    """Return the most bytes that a head takes with its texts, its fields and its plan.

    The path is kept as it was sent and as decoded text, of four bytes a letter where one letter is
    an odd one; other texts are kept once or twice.
    """
    return 6000 + 12 * len(data) + 250 * len(head.headers)


class SharedHeads:
    """Heads by their bytes. Reactor thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._heads: BoundedCache[bytes, tuple[bytes, RequestHead]] = BoundedCache(MAX_KNOWN_BYTES)

    def clear(self) -> None:
        """Forget all heads: the routes have changed, so everything is to be worked out anew."""
        self._heads.clear()

    def shared(self, data: bytes, head: RequestHead) -> tuple[bytes, RequestHead]:
        """Return `data` and the head that these bytes stand for, as all connections share them.

        The first time, both are the arguments themselves.
        """
        found = self._heads.kept.get(data)
        if found is not None:
            return found
        if len(data) <= MAX_KEPT_HEAD_BYTES:
            self._heads.put(data, (data, head), size_of_head(data, head))
        return data, head
