"""Quotas in rows: a token bucket for each key, and one that all requests without a known key share.

A bucket holds at most a burst of rows and is refilled continuously. A request of more rows than it
can ever hold is let in when it is full, and leaves it in debt: to refuse it for good would be
wrong, since the rows are not too many, only too many at once, and any `Retry-After` would be a
promise that is not kept. So in any time t at most burst + rate * t rows are let in, but for what
one last request has beyond the burst.

Quotas are no authentication: an unknown key is as good as none. Keys are secrets and stay in here;
names are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from batcher.config.quota import Quota
from batcher.errors import InvalidInput, QuotaExceeded

GRAIN = 1e-6
"""Seconds too early that a request may come: clocks that count from 1970 are no finer, and who
waits as long as it was told to is let in.
"""


class Bucket:
    """The rows that one quota has left. Times are seconds on one clock. Reactor thread.

    Attributes:
        name: for metrics.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate", "name")

    def __init__(self, name: str, rate: float, burst: float) -> None:
        """Start full; `rate` in rows/s, `burst` in rows."""
        self.name = name
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def charge(self, rows: int, now: float) -> None:
        """Take `rows` out, at the time `now`.

        Raises QuotaExceeded, and takes nothing, if they are not there.
        """
        elapsed = max(
            now - self._at, 0.0
        )  # the clock of some reactors is the system's, which may be set back
        self._left = min(self._left + elapsed * self._rate, self._burst)
        self._at = now
        wait = (min(rows, self._burst) - self._left) / self._rate
        if wait > GRAIN:
            most = f"{self._rate:g} rows/s and {self._burst:g} at once"
            raise QuotaExceeded(
                f"quota: expected at most {most}; got {rows} more",
                retry_after=max(ceil(wait - GRAIN), 1),
            )
        self._left -= rows

    def give_back(self, rows: int) -> None:
        """Put `rows` that were charged, and did not run, back."""
        self._left += rows


class Quotas:
    """Which bucket a key is charged to. Reactor thread."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        """Start with full buckets for `quotas`, as `config.yaml` has them.

        By key, `*` for all other requests together.
        """
        self._buckets = {
            key: Bucket(quota.name or f"quota-{number}", quota.rows_per_s, quota.burst)
            for number, (key, quota) in enumerate(quotas.items(), 1)
        }
        self._others = self._buckets.pop("*", None)

    def of(self, key: str) -> Bucket | None:
        """Return what `key` is charged to, None where it is not limited.

        Raises InvalidInput: it is several.
        """
        bucket = self._buckets.get(key)
        if bucket is not None:
            return bucket
        if " " in key:  # which no key of a configuration holds, and fields that came twice do
            raise InvalidInput(
                "X-Api-Key, or Authorization: Bearer: expected one key; got several, or one with a "
                "space in it"
            )
        return self._others


def quotas_of(quotas: Mapping[str, Quota]) -> Quotas | None:
    """Return the `quotas` of a configuration.

    None where there are none, so that no request is looked at.
    """
    return Quotas(quotas) if quotas else None
