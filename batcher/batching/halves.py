"""Whether one batch holds all clients that return, or two batches by turns half of them each.

The time until clients are back holds what the loop and the clients need for each request. That time
overlaps the other half batch, but no full batch. N clients with c seconds a request make

    one full batch      N rows in c * N + l(N)
    two half batches    N rows in 2 * l(N / 2), if c * N / 2 < l(N / 2)

So rates are measured. Where full batches, on average over three reviews or more, bring less than
half batches could at best, half of the clients are waited for at most, for 16 batches, which tell
what half batches do bring. Then full batches are tried again, and after the next failure not for
128 batches, then 256, and so on up to 512. From then on the measured rate of half batches is the
mark, for as long as there are about as many clients.

Also half batches need waits, seldom: without, 64 clients may split into 1 and 63. The one is sent
as soon as the 63 are done, and the loop's work for 63 is longer than a batch of one. There clients
are back too late to be told from others by their times, but the rows of a batch and those that wait
at its end are always as many. At random they would differ by their root, 8 of 64. So half of the
clients are waited for also where that sum differs by less than a quarter of its root.

Not all halves come back in time. Of 32 clients 24 may think for 5 ms. Batches of 24 and 8 rows then
take turns, and each wait for half of the clients ends with 8 rows. After four waits in vain nobody
is waited for, for 128 batches, then 256, and so on up to 512.
"""

from __future__ import annotations

from math import sqrt

WEIGHT = 0.2
"""Weight of a batch in the mean of the clients' rows, and of a review in the mean of rates."""

REVIEWED_WAITS = 8
"""Waits for all clients before their rate is looked at."""

LEAST_REVIEWS = 3
"""Reviews before full batches are given up. One alone is of a twentieth of a second, which may have
been slow because the machine did something else.
"""

FIRST_PAUSE, MIN_PAUSE, MAX_PAUSE = 16, 128, 512
"""Batches for which half of the clients are waited for where full batches have brought less: the
first time, the second, and at most.
"""

LATE_WAITS = 4
"""Waits in vain for half of the clients, one after the other, after which no half is waited for."""

STEADY, STEADY_WEIGHT = 0.25, 0.05
"""Part of the root of the clients by which their number may differ on average, and the weight of a
batch in that average.
"""

LEAST_CLIENTS = 16
"""Rows of clients below which their number is no evidence: one or two rows are often as many."""

SAME_CLIENTS = 1.25
"""Factor within which the number of clients may change before rates are no longer compared."""


class Halves:
    """Compares the rates of full and of half batches. Reactor thread.

    Attributes:
        pause: batches for which only half of the clients are waited for; 0 or less for none.
        rest: batches for which not even half of the clients are waited for; 0 or less for none.
        certain: whether clients are known to return by their times, and not by their number alone.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.pause = self.rest = 0
        self.certain = False
        self._next_pause, self._next_rest = FIRST_PAUSE, MIN_PAUSE
        self._in_vain = 0  # waits for half of the clients, since the last one that was not in vain
        self._clients = 0.0  # rows of all clients
        self._differs = float(LEAST_CLIENTS)  # by how much that number differs on average
        # For all clients: waits since such waits began, and reviews of them.
        self._waits, self._reviews = 0, 0
        # Rows/s with waits for all, with waits for half, and the clients' rows then; 0 before.
        self._together, self._apart, self._apart_clients = 0.0, 0.0, 0.0

    @property
    def chosen(self) -> bool:
        """Whether half of the clients are the most that is waited for."""
        return self.pause > 0 or not self.certain

    @property
    def clients(self) -> int:
        """Rows of all clients."""
        return int(self._clients + 0.5)

    @property
    def rows(self) -> int:
        """Rows of half of the clients."""
        return int(self._clients / 2 + 0.5)

    @property
    def steady(self) -> bool:
        """Whether there are always as many clients."""
        clients = self._clients
        return clients >= LEAST_CLIENTS and self._differs <= STEADY * sqrt(clients)

    def forget(self) -> None:
        """Forget the rates, since batches take other times now."""
        self.pause, self._next_pause, self._waits, self._reviews = 0, FIRST_PAUSE, 0, 0
        self._together, self._apart, self._apart_clients = 0.0, 0.0, 0.0
        self.rest, self._next_rest, self._in_vain = 0, MIN_PAUSE, 0
        self._differs = float(LEAST_CLIENTS)

    def note_end(self, rows: int, waiting: int) -> None:
        """Count the end of a batch of `rows` rows, while `waiting` rows wait."""
        change = rows + waiting - self._clients
        self._clients += WEIGHT * change
        self._differs += STEADY_WEIGHT * (abs(change) - self._differs)

    def note_wait(self, in_vain: bool) -> None:
        """Count a wait for clients, which was `in_vain` if some were not back at its end."""
        if not self.chosen:
            self._waits += 1
        elif not in_vain:
            self._in_vain, self._next_rest = 0, MIN_PAUSE
        else:
            self._in_vain += 1
            if self._in_vain >= LATE_WAITS:
                self._in_vain, self.rest = 0, self._next_rest
                self._next_rest = min(2 * self.rest, MAX_PAUSE)

    def compare(self, rate: float, half_s: float) -> None:
        """Learn from `rate`, the rows/s since the last time, and pause where that is too low.

        A batch with half of the clients takes `half_s` seconds.
        """
        if self.chosen:
            self._apart, self._apart_clients = _mean(self._apart, rate), self._clients
            return
        if self._waits < REVIEWED_WAITS or not half_s:
            return
        self._reviews += 1
        self._together += max(WEIGHT, 1 / self._reviews) * (rate - self._together)
        if self._reviews < LEAST_REVIEWS:
            return
        mark = self.rows / half_s
        clients = self._apart_clients
        if self._apart and clients / SAME_CLIENTS < self._clients < clients * SAME_CLIENTS:
            mark = min(mark, self._apart)
        if self._together >= mark:
            self._next_pause = FIRST_PAUSE
            return
        self._waits, self._reviews, self._together, self._apart = 0, 0, 0.0, 0.0
        self.pause = self._next_pause
        self._next_pause = min(max(2 * self.pause, MIN_PAUSE), MAX_PAUSE)


def _mean(mean: float, rate: float) -> float:
    """Return the moving mean with one more rate; 0 stands for none."""
    return mean + WEIGHT * (rate - mean) if mean else rate
