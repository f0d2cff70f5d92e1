"""How many instances a model wants, from its backlog and from deadlines that could not be met.

Once a second somebody tells how much work came and waits, and is told how many instances are
wanted. Work is counted in rows, and a row in the seconds that it takes in a full batch: a model
that is busy with small batches has room left, which a share of busy time does not show.

    load   = rows/s that came in the last 10 s * l(B) / B     instances that the rows keep busy
    behind = (waiting rows - n * B) * l(B) / B                seconds of one instance, at least 0
    need(use) = ceil((load + behind / 30 s) / use)

with B the most rows of a batch, l(B) the learnt seconds of such a batch, and n the instances that
take batches. A batch for each instance waits also where there are enough of them. Rows that were
refused count as rows that came, if one instance without a queue would have answered them in time.
Where these are more than a hundredth of all, deadlines are at risk, whatever the load is in the
mean: then need is n + 1 at least.

Two rules keep the number from going to and fro.

- **Two bounds**: instances are added when need(0.8) is more than are wanted, and leave when
  need(0.6) is less. A load between the two changes nothing.
- **A cool-down**: instances leave when need(0.6) was less for the whole cool-down, down to the
  highest need of that time. To come they need not wait.

Example: B = 32, l(32) = 0.4 s, n = 2, and 200 rows/s come: load = 2.5. If 1,024 rows wait, behind =
960 * 0.0125 s = 12 s, which is 0.4 of an instance for 30 s: need(0.8) = ceil(3.6) = 4.

Where nothing is known nothing changes: before the first batch, and while no instance takes batches,
which is a failure and no load. Bulk requests have no instances added: they fill gaps.

Refused: the share of time for which instances are busy, as others take it. Under `eager` one busy
instance may have room for twenty times the rows, or for none.

Source: the rule of the Horizontal Pod Autoscaler of Kubernetes (`ceil` of load by target, and the
highest need of a time for scaling in); leaving late, as in AutoScale (Gandhi et al., ACM
Transactions on Computer Systems 30(4), 2012).
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import NamedTuple

WINDOW_S = 10.0
"""Seconds over which rows are counted: single bursts are backlog, and no load."""

CATCH_UP_S = 30.0
"""Seconds in which a backlog is to be gone: about as long as an instance takes to come. With fewer,
each burst would have instances come that find nothing to do.
"""

USE_OUT = 0.8
"""Share of their time for which instances may be busy with full batches; beyond it waits grow
without bound.
"""

USE_IN = 0.6
"""Share of its time for which each instance may be busy after others have left. 3 instances at just
over 0.8 of 2 have 0.54 each, so a load that had one come does not have one leave.
"""

RISK_SHARE = 0.01
"""Part of the rows that are refused in time of need: p99 is what most services promise."""


class Demand(NamedTuple):
    """What has come to a model, and what waits there.

    Attributes:
        came: rows that came since the model was loaded, bulk apart, `refused` included.
        refused: rows that were refused since then, though a free instance had answered in time.
        waiting: rows that wait, bulk apart.
        full_rows: most rows of a batch.
        full_s: seconds that such a batch takes; 0 while nothing is known.
        ready: instances that take batches.
    """

    came: int
    refused: int
    waiting: int
    full_rows: int
    full_s: float
    ready: int


class Autoscale:
    """Says how many instances of one model are wanted. Reactor thread.

    Attributes:
        wanted: how many.
    """

    def __init__(self, least: int, most: int, cool_down_s: float) -> None:
        """Want at least `least` and at most `most`."""
        self.wanted = least
        self._least, self._most = least, most
        self._cool_down_s = cool_down_s
        self._looks: deque[tuple[float, Demand]] = deque()
        # Needs of the cool-down with their times; a need that a later one exceeds is left out.
        self._needs: deque[tuple[float, int]] = deque()

    def begin_with(self, wanted: int, now: float) -> None:
        """Want as many as were `wanted` of what this model replaces, for a cool-down at least."""
        self.wanted = self._bounded(max(wanted, self.wanted))
        self._note_need(self.wanted, now)

    def look(self, now: float, demand: Demand) -> int:
        """Return how many instances are wanted, as of `now`, in seconds."""
        if not self._looks:
            self._note_need(self.wanted, now)  # nothing leaves within the first cool-down
        self._looks.append((now, demand))
        while now - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()
        if not demand.ready or not demand.full_s:
            self._note_need(self.wanted, now)
            return self.wanted
        before = self._looks[0][1]
        # A window that is not full yet began with nothing.
        load = _work(demand.came - before.came, demand) / WINDOW_S
        load += _work(demand.waiting - demand.ready * demand.full_rows, demand) / CATCH_UP_S
        is_at_risk = demand.refused - before.refused > RISK_SHARE * (demand.came - before.came)
        least = demand.ready + 1 if is_at_risk else 0
        self._note_need(max(ceil(load / USE_IN), least), now)
        self.wanted = self._next(self._bounded(max(ceil(load / USE_OUT), least)))
        return self.wanted

    def _next(self, need: int) -> int:
        """Return how many are wanted where `need` are needed now."""
        if need > self.wanted:
            return need
        return min(self._bounded(self._needs[0][1]), self.wanted)

    def _note_need(self, need: int, now: float) -> None:
        """Remember `need` for the cool-down."""
        while self._needs and self._needs[-1][1] <= need:
            self._needs.pop()
        self._needs.append((now, need))
        while now - self._needs[0][0] > self._cool_down_s:
            self._needs.popleft()

    def _bounded(self, need: int) -> int:
        return min(max(need, self._least), self._most)


def _work(rows: int, demand: Demand) -> float:
    """Return the seconds that one instance takes for `rows` rows in full batches, at least 0."""
    return max(rows, 0) * demand.full_s / demand.full_rows
