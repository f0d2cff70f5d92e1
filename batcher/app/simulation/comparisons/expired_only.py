"""Drop what has expired, and nothing else: what other servers do at most."""

from __future__ import annotations

from collections.abc import Hashable

from batcher.batching.admission import Admission
from batcher.batching.places import Places
from batcher.batching.policies.policy import Cost, no_cost
from batcher.batching.queue import BatchQueue


class ExpiredOnly(Admission):
    """Learns what batches take, which policies may ask for, and refuses nobody."""

    def check(
        self,
        queue: BatchQueue,
        places: Places,
        reruns: int,
        rows: int,
        level: int,
        group: Hashable,
        now: float,
        deadline: float,
    ) -> None:
        """Admit everybody."""

    def cost(self, places: Places, now: float) -> Cost:
        """Return no time at all, so only what has expired counts as late."""
        return no_cost
