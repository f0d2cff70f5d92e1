"""How long a free worker lets others run ahead, so that the workers of a model take turns.

Workers that begin together end together: a request that comes just after must wait for a whole
batch, as if there were one worker. If each begins a Kth of a batch's time after the one before, one
of K workers is free after every Kth of that time. The requests of that while share one batch.

    three workers, batches of 6 ms         together          by turns
    begin at                               0  0  0  6  6     0  2  4  6  8 ms
    longest wait for a free worker         6 ms              2 ms

So the last free worker waits, counted from the latest beginning of a batch on another one,

    wait = share * l(b) / K * (1 - 0.2 / b) * min(1, 5 * (0.9 - b / B))

with b the mean rows of a batch and B the most. The factor (1 - 0.2 / b) shortens waits of batches
of a single row, which nobody joins. The last factor ends waits where batches are nearly full: then
requests gather anyhow, and no worker has time to lose.

Example: l(b) = 4 ms + 0.25 ms * b, K = 4, B = 32 and b = 8: 1.2 * 6 ms / 4 * 0.975 is 1.76 ms.

While others are free too, a request that comes next finds one of those: there is nothing to keep.
Of many workers, a quarter counts as the last one. The constants are those with which, simulated at
loads of 5 to 95 %, waits cost no load more than they bring (`benchmarks/default_policy.py`).
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from batcher.batching.admission import Admission
from batcher.batching.places import Places

LAST_SHARE = 0.25
"""Part of the workers that counts as the last free one."""

SHARE, SHARE_OF_TWO = 1.2, 1.0
"""Length of waits as a part of l(b) / K, for several workers and for two.

With a fifth more than l(b) / K, four workers gain another tenth of p99, but two lose in the mean.
"""

ALONE = 0.2
"""Part of the wait that batches of one row do without: whole, it costs 2.6 % in the mean at 5 %
load.
"""

NEARLY_FULL, SLOPE = 0.9, 5
"""Part of a full batch from which on there are no waits, and how fast they end before."""

LEAST_WAIT_S = 1e-4
"""Seconds of a wait that is worth a timer: a turn of the loop takes as long."""


class Stagger:
    """Says until when the last free worker waits. Reactor thread."""

    def __init__(self, places: Places, admission: Admission, max_wait: float) -> None:
        """Look at the workers of `places`; no wait is longer than `max_wait` seconds.

        `admission` knows what batches take, and how large they are.
        """
        self._places = places
        self._admission = admission
        self._max_wait = max_wait
        self._until = 0.0  # when the wait ends that was made for the next batch; 0 for none

    def until(self, group: Hashable, most: int, now: float) -> float:
        """Return until when a free worker waits that could take a batch of `group` `now`.

        The time may be over, if there was a wait; 0 if there was none. A batch has at most `most`
        rows. A wait is over, too, once no worker runs a batch.
        """
        places = self._places
        free, latest = places.free_and_latest()
        if latest == -inf:
            self._until = min(self._until, now)
        elif free <= max(int(LAST_SHARE * places.alive), 1):
            wait = min(self._wait(group, most), self._max_wait)
            if wait >= LEAST_WAIT_S and now < latest + wait:
                self._until = latest + wait
        return self._until

    def forget(self) -> None:
        """Forget the wait: its batch is on its way, or all that waited have left."""
        self._until = 0.0

    def _wait(self, group: Hashable, most: int) -> float:
        rows = max(self._admission.mean_batch_rows, 1.0)
        seconds = self._admission.batch_seconds(int(rows + 0.5), group)
        share = (SHARE if self._places.alive > 2 else SHARE_OF_TWO) / self._places.alive
        return share * seconds * (1 - ALONE / rows) * min(SLOPE * (NEARLY_FULL - rows / most), 1.0)
