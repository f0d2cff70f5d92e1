"""Heads that clients send again and again, known to all connections of a server.

Clients of one kind send the same head, byte for byte. What is worked out about such a head once
(route, model, formats) is then true for all of them. One copy of the head stays in the processor's
cache, where one copy for each connection would not.
"""

from __future__ import annotations

from batcher.frontends.web.http11.messages import RequestHead

MAX_KEPT_HEADS = 1024
"""Heads that are kept. Clients that send a new head each time only make the others be read anew."""

MAX_KEPT_HEAD_BYTES = 2048
"""Bytes of the largest head that is kept."""


class SharedHeads:
    """Heads by their bytes. Reactor thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._heads: dict[bytes, tuple[bytes, RequestHead]] = {}

    def clear(self) -> None:
        """Forget all heads: the routes have changed, so everything is to be worked out anew."""
        self._heads.clear()

    def shared(self, data: bytes, head: RequestHead) -> tuple[bytes, RequestHead]:
        """Return `data` and the head that these bytes stand for, as all connections share them.

        The first time, both are the arguments themselves.
        """
        found = self._heads.get(data)
        if found is not None:
            return found
        if len(data) > MAX_KEPT_HEAD_BYTES:
            return data, head
        if len(self._heads) >= MAX_KEPT_HEADS:
            self._heads.clear()
        self._heads[data] = data, head
        return data, head
