"""Whether, and when, to try a call again, as a pure function of what went wrong.

A call is repeated only if it surely did not run: no connection could be made, or the server refused
it and says so by `Retry-After`, which it sends with no other answer (a deadline that passed is a
503 without). A connection that breaks after something was sent proves nothing: the request may be
running. That holds for a kept connection too, whose server closed it while the request was on its
way; it is not repeated either. It is made rare instead: servers of this kind keep an idle
connection for 75 s and announce the end of any other, and a client that lets go of its own after
`KEEP_SECONDS` is never the one that is surprised.

Refused alternative: to take a connection that breaks before the first byte of its answer for one
that was stale. A server that was killed by this very request looks the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from batcher.client.errors import AnswerLost, ClientFailure, InferenceFailed, NotConnected

KEEP_SECONDS = 60
"""For how long an idle connection is kept: less than the 75 s after which the server closes it."""

CONNECT_SECONDS = 5.0
"""Longest time to make one connection in: enough for a lost packet or two, short enough to try
another time.
"""

FIRST_SECONDS = 0.1
MOST_SECONDS = 5.0
"""Waits between attempts: as long as a process takes to listen again at first, then doubled, but
never so long that a server that is back stands idle.
"""

_REFUSED = (429, 503)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and after what.

    Attributes:
        retries: most attempts after the first.
        patient: whether every failure but the end of the time is worth another attempt, as for a
            question that asks just that.
    """

    retries: float = 3
    patient: bool = False


def next_wait(
    policy: RetryPolicy,
    attempt: int,
    now: float,
    deadline: float,
    failure: ClientFailure,
    jitter: float,
) -> float | None:
    """Return for how many seconds to wait before the next attempt; None if there shall be none.

    Args:
        policy: how often, and after what.
        attempt: which one failed, the first is 0.
        now: the time, in seconds.
        deadline: when the call is worthless, on the same clock.
        failure: what went wrong.
        jitter: 0 to 1, drawn anew each time: clients that failed together shall not come back
            together. It makes a wait only longer.
    """
    if attempt >= policy.retries or not _may_repeat(policy, failure):
        return None
    backoff = min(FIRST_SECONDS * 2 ** min(attempt, 16), MOST_SECONDS)
    asked = getattr(failure, "retry_after", None)
    wait: float = backoff * (1 + jitter) if asked is None else asked + backoff * jitter
    return wait if now + wait < deadline else None


def _may_repeat(policy: RetryPolicy, failure: ClientFailure) -> bool:
    if isinstance(failure, NotConnected):
        return True
    if (
        isinstance(failure, InferenceFailed)
        and failure.status in _REFUSED
        and failure.retry_after is not None
    ):
        return True
    return policy.patient and isinstance(failure, InferenceFailed | AnswerLost)
