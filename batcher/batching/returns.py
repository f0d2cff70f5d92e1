"""How long a free worker may wait for clients that come back after their answers.

Clients that each send their next request when they have an answer split into two groups under a
policy that never waits: while the requests of one group run, those of the other are answered and
come back. Each batch is half as large as it could be, and the fixed cost of a batch is paid twice.

    N clients, batches of b rows take l(b) = beta + alpha * b, answered clients are back within w

    two half batches by turns    N rows in 2 * l(N / 2) = 2 * beta + alpha * N
    one full batch at a time     N rows in w + l(N)     = w + beta + alpha * N

So one full batch is better where w < beta, and a free worker should wait that long.

**What is learnt.** Rows are counted by the time that has passed since the last batch ended. This is
done whatever is decided, so that a decision never changes what is learnt. Old counts fade: a batch
counts half after 35 further batches, or after a third of a second without a batch. Time in which a
batch runs does not count, or nothing would be learnt of models whose batches take long.

**When it is used.** Clients return if rows come sooner after the end of a batch than at other
times. Let M be the rows that came within w, and B those that would have come within w at the rate
of the time after w. At least 0.6 of M must be more than B, and M at least 40 rows. B counts as 2.5
deviations more than it is, since few rows come then. Rows that come at random have M = B, and are
hardly ever waited for.

**How long.** With n rows that wait, the worker waits for the time w that makes the rate largest,

    (n + M(w)) / (w + l(n + M(w)))     M(w): rows that come within w after a batch of its size

if that is above n / l(n) by 3 %. The wait ends as soon as n + M(w) rows are there. A wait that ends
without them makes what was learnt fade by a fifth. M is learnt as a share of the rows of a batch,
since it is those whose clients return: after a batch of 32 rows four times as many as of 8.

**All of them.** A wait for all clients ends when the last one is back, so that it takes less than w
on average. Let C(v) be the share of batches after which all were back within v:

    rate = (n + M(w)) / (the sum of 1 - C(v) over all v up to w, + l(n + M(w)))

Without this the last ones are missed, and stay behind: 45 of 48 clients were waited for on a
machine whose loop is now faster, now slower, though all 48 were the better batch by 5 %.

Example: l(b) = 2 ms + 0.05 ms * b, and 16 clients are back within 0.6 ms. With 8 rows, n / l(n) is
3,333 rows/s, and (8 + 8) / (0.6 ms + 2.8 ms) is 4,706 rows/s: the worker waits.

No wait is longer than 2 * l(1), nor than `max_delay_ms`. A wait saves the fixed cost of a batch,
which is about l(1), so waits that take l(1) on average win nothing. But most waits for all clients
are short. Now and then the last clients are late because the machine did something else; a batch
without them would split the clients into two groups.

**For whom.** For all clients, or for half of them, whichever was found to be better (`halves`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf, sqrt

from batcher.batching.halves import Halves

BINS = 16
"""Parts of the fixed cost of a batch by which times are counted."""

WAITS = 2 * BINS
"""Lengths of waits that are compared, in such parts."""

LEAST_SPAN_S = 2e-4
"""Seconds that a batch of one row must take: below, a wait costs as much as it brings."""

FADE = 1.02
"""Factor by which a batch counts more than the one before."""

FADE_A_SECOND = 2.0
"""Factor's growth by each second without a batch: rare batches tell of long ago."""

LONGER = 1.25
"""Times its usual seconds that a batch may take: what is beyond counts as time without a batch."""

FORGET_S = 0.5
"""Seconds without a batch after which all is forgotten."""

LEAST_ROWS = 40
"""Rows that tell chance from habit."""

LEAST_ENDED_ROWS = 0.01
"""Rows of batches, faded, below which nothing is known of what follows a batch."""

LEAST_SHARE = 0.6
"""Part of the rows that must have come because a batch had ended."""

LEAST_GAIN = 1.03
"""Times that a wait must raise the rate: below, it is noise."""

SURE = 2.5
"""Deviations by which rows of later times may be few by chance: they count as that many more."""

MOST_MORE = 1.1
"""Most rows that are likely to come, as a multiple of the clients that are missing, where a free
worker waits for all clients: if more rows come, others than those send them.
"""

MAX_DRIFT = 1.5
"""Factor within which the fixed cost may change before all is learnt anew."""

MISSED = 1.25
"""Factor by which what is learnt fades where a wait was in vain."""

REVIEW_EVERY = 8
"""Batches between two looks at what was learnt, which take as long as a batch's decision."""

Seconds = Callable[[int, Hashable], float]
"""Estimates the seconds of a batch of so many rows of a shape."""


class Returns:
    """Learns when clients return, and says how long to wait for them. Reactor thread.

    Attributes:
        counts: whether rows are counted; not while a batch costs too little to wait for anybody.
        found: whether clients are known to return.
        until: time in seconds at which the wait after the last batch ends; 0 if none was planned.
        rows: rows that this wait is for; 0 if there is nothing to wait for.
        wait: seconds from the end of a batch to that of the wait that was planned last; 0 before.
    """

    def __init__(self, seconds: Seconds, max_wait: float) -> None:
        """Know nothing yet; batches take `seconds`, and no wait is longer than `max_wait` s."""
        self.counts = False
        self.found = False
        self.until = 0.0
        self.rows = 0
        self.wait = 0.0
        self._seconds, self._max_wait = seconds, max_wait
        self._ended = -1e9  # when the last batch ended
        self._since = 0  # rows that have come since then
        self._weight = 1.0  # of the rows and batches that come now
        self._span = 0.0  # seconds of the fixed cost of a batch
        self._waits = BINS  # lengths of waits that are compared
        self._bin_s = inf
        self._came: list[float] = []  # rows, by the time since the last batch
        self._ends: list[float] = []  # batches, by the time until the next one ended
        self._ended_rows = 0.0  # rows of these batches
        self._missing = 0  # clients that were not there when the last batch ended
        self._complete = [0.0] * WAITS  # batches, by the time until all clients were there
        self._awaited = 0.0  # batches at whose end a client was missing
        self._last_rows = 0  # rows of the last batch
        self._within = [0.0] * WAITS  # rows that come until the end of each bin, for one that ended
        self._review_in = 1
        self._done, self._reviewed = 0, 0.0  # rows since the last review, and when that was
        self._halves = Halves()

    @property
    def longest(self) -> float:
        """Seconds of the longest wait that may be made; 0 while no wait could pay."""
        return self._span * self._waits / BINS

    @property
    def paused(self) -> bool:
        """Whether clients return, but waits for all of them have not paid."""
        return self._halves.pause > 0

    def note_rows(self, before: int, waiting: int, now: float) -> bool:
        """Count rows that come: `before` rows waited, now `waiting` do. Only while `counts`.

        Return whether all are there now that were waited for. Their batch is sent at once: the rest
        of the loop's turn, in which the loop reads other requests, would be lost.
        """
        rows = waiting - before
        index = int((now - self._ended) / self._bin_s)
        if 0 <= index < WAITS:  # a clock may be set back
            self._came[index] += rows * self._weight
            if self._since < self._missing <= self._since + rows:
                self._complete[index] += self._weight
        self._since += rows
        return 0 < self.rows <= waiting

    def note_end(self, rows: int, waiting: int, now: float) -> None:
        """Count the end of a batch of `rows` rows, while `waiting` rows wait.

        A wait that was planned before is over. Bulk rows do not count, neither in the batch nor in
        the queue: a batch of bulk alone has 0 rows.
        """
        passed, self._ended = max(now - self._ended, 0.0), now
        idle = max(passed - LONGER * self._seconds(max(rows, 1), ()), 0.0)
        self.until, self.rows, self._since, self._last_rows = 0.0, 0, 0, rows
        self._halves.pause -= 1
        self._halves.rest -= 1
        self._done += rows
        if self.counts:
            self._count_end(rows, waiting, passed)
            self._weight *= FADE * (1 + FADE_A_SECOND * idle)
        self._review_in -= 1
        if not self._review_in or idle > FORGET_S:
            self._review_in = REVIEW_EVERY
            self._review(idle > FORGET_S, now)

    def note_sent(self, rows: int, now: float) -> None:
        """Count the end of a wait, with a batch of `rows` rows, bulk apart."""
        in_vain = now >= self.until and rows < self.rows
        if in_vain:
            self._weight *= MISSED
        self._halves.note_wait(in_vain)
        self.rows = 0

    def give_up(self) -> None:
        """Forget the wait that was planned: all that waited have left, so it tells nothing."""
        self.until, self.rows = 0.0, 0

    def plan(self, rows: int, group: Hashable, most: int, now: float) -> None:
        """Set how long to wait, where `rows` rows of `group` are there and `most` make a batch."""
        self.until = now
        halves = self._halves.chosen
        if halves and self._halves.rest > 0:
            return
        if halves:
            most = min(most, self._halves.rows)
        coming = min(self._within[self._waits - 1] * self._last_rows - self._since, most - rows)
        alone, together = self._seconds(rows, group), self._seconds(rows + int(coming), group)
        if coming < 0.5 or not alone:
            return
        self._choose(rows, coming, most - rows, alone, (together - alone) / coming, now)
        if self.rows and halves:
            # of uneven halves too few are back in time, which would keep them uneven
            self.until, self.rows = self._ended + self.longest, most
        if self.rows:
            self.wait = self.until - self._ended

    def _choose(
        self, rows: int, coming: float, most: int, alone: float, row_s: float, now: float
    ) -> None:
        """Set the wait of the largest rate, for `most` more rows at most, of which `coming` come.

        A batch takes `alone` seconds for `rows` rows, and `row_s` for each further row.
        """
        first = int(max(now - self._ended, 0.0) / self._bin_s)
        lasting, missing = self._awaited - sum(self._complete[:first]), self._missing - self._since
        # else their number has changed, or is no number of clients
        all_return = 0 < missing <= most and coming <= MOST_MORE * missing and lasting > 0
        share = self._bin_s / lasting if all_return else 0.0
        best, mean_wait = LEAST_GAIN * rows / alone, self._ended + first * self._bin_s - now
        for index in range(first, self._waits):
            end = self._ended + (index + 1) * self._bin_s
            more = min(self._within[index] * self._last_rows - self._since, coming)
            mean_wait += share * lasting
            lasting -= self._complete[index]
            if more <= 0:
                continue
            wait, target = (mean_wait, missing) if all_return else (end - now, int(more + 0.5))
            rate = (rows + more) / (wait + alone + row_s * more)
            if rate > best:
                best, self.until, self.rows = rate, end, rows + target

    def _count_end(self, rows: int, waiting: int, passed: float) -> None:
        """Count the end of a batch, `passed` seconds after that of the batch before."""
        if rows:
            self._halves.note_end(rows, waiting)
        missing = self._halves.clients - waiting
        # only those that were in this batch can come back after it
        self._missing = missing if missing <= rows else 0
        if self._missing > 0:
            self._awaited += self._weight
        self._ended_rows += rows * self._weight
        self._ends[min(int(passed / self._bin_s), WAITS)] += self._weight

    def _review(self, forget: bool, now: float) -> None:
        """See whether clients return, from what was counted."""
        if self.found:
            rate = self._done / max(now - self._reviewed, LEAST_SPAN_S)
            self._halves.compare(rate, self._seconds(self._halves.rows, ()))
        self.found, self._done, self._reviewed = False, 0, now
        span = min(self._seconds(1, ()), self._max_wait)
        self.counts = span >= LEAST_SPAN_S
        if not self.counts:
            self._span = 0.0
        elif forget or not self._span / MAX_DRIFT < span < self._span * MAX_DRIFT:
            self._span, self._bin_s, self._weight = span, span / BINS, 1.0
            self._waits = int(min(WAITS, BINS * self._max_wait / span))
            self._came, self._ends = [0.0] * WAITS, [0.0] * (WAITS + 1)
            self._ended_rows, self._awaited = 0.0, 0.0
            self._complete = [0.0] * WAITS
            self._halves.forget()
        else:
            self._scale()
            self._halves.certain = self._measure()
            self.found = self._halves.certain or self._halves.steady

    def _scale(self) -> None:
        """Count anew from a weight of 1."""
        scale = 1 / self._weight
        self._came = [rows * scale for rows in self._came]
        self._ends = [batches * scale for batches in self._ends]
        self._ended_rows *= scale
        self._complete = [batches * scale for batches in self._complete]
        self._awaited *= scale
        self._weight = 1.0

    def _measure(self) -> bool:
        """Learn when rows come; return whether that is when clients do that return."""
        # Batches after which the next one ended in each bin or later.
        lasting = sum(self._ends)
        reached = []
        for batches in self._ends:
            reached.append(lasting)
            lasting -= batches
        within, later, later_bins = 0.0, sum(self._came), sum(reached[:-1])
        found, known = False, self._ended_rows >= LEAST_ENDED_ROWS
        for index in range(WAITS):
            within += self._came[index]
            later -= self._came[index]
            later_bins -= reached[index]
            self._within[index] = within / self._ended_rows if known else 0.0
            many = later + SURE * sqrt(max(later, 1.0))
            chance = many / later_bins * (index + 1) * reached[0] if later_bins > 0 else within
            if index < BINS and within >= LEAST_ROWS and chance <= (1 - LEAST_SHARE) * within:
                found = True
        return found
