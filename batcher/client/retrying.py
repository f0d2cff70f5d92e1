"""Whether, and when, to try a call again: a pure function of the failure and the time left.

A call is repeated only if the request surely does not run twice. There are three such cases:

- No connection could be made.
- The answer was lost, and the server has said in an answer to an earlier call that it keeps the
  answers to requests with an `Idempotency-Key`. Each inference has such a key, the same at each
  attempt. (A server that has started anew in between knows no key, and runs the request again.
  So a lost answer is asked for again once in a call: a request that kills its server kills the
  server once more, and not with all attempts.)
- The server refused the request and sent `Retry-After`. The server sends that header with no other
  answer: a deadline that passed is a 503 without `Retry-After`.

Otherwise a connection that breaks after something was sent proves nothing: the request may be
running. A
kept connection that the server closes while the request is on its way is such a case, and is not
repeated either. That case is made rare instead. Servers of this kind keep an idle connection for
620 s and announce the end of any other connection, and this client lets go of an idle connection
after `KEEP_ALIVE_S`, so the server's closing seldom surprises the client.

Refused alternative: to repeat a request whose connection breaks before the first byte of the
answer, as if the connection had been stale. A server that was killed by this very request looks the
same.

The wait before the next attempt, with `attempt` counted from 0 and `jitter` drawn from 0 to 1:

    backoff = min(FIRST_WAIT_S * 2**attempt, MAX_WAIT_S)
    wait    = backoff * (1 + jitter)              without Retry-After
    wait    = retry_after + backoff * jitter      with Retry-After

Jitter makes a wait only longer, and keeps clients that failed together from coming back together.

A client that has several servers does not wait where another server may be tried. The exception is
429: a key's quota is used up, and asking elsewhere would only go round it.

Example: the third attempt failed (`attempt` 2), jitter is 0.5. The backoff is 0.1 * 4 = 0.4 s, so
the wait is 0.6 s; if the server sent `Retry-After: 2`, the wait is 2.2 s.
"""

from __future__ import annotations

from dataclasses import dataclass

from batcher.client.errors import AnswerLost, ClientFailure, InferenceFailed, NotConnected

KEEP_ALIVE_S = 60
"""Seconds for which an idle connection is kept: as long as the usual balancers keep one, and less
than the 620 s of the server.
"""

CONNECT_TIMEOUT_S = 5.0
"""Longest time to make one connection: enough for a lost packet or two, and short enough to leave
time for another attempt.
"""

FIRST_WAIT_S = 0.1
"""Wait after the first attempt: about as long as a process takes to listen again."""

MAX_WAIT_S = 5.0
"""Longest backoff, so that a server that is back does not stand idle."""

_OVER_QUOTA = 429
_REFUSAL_STATUSES = (_OVER_QUOTA, 503)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is tried again, and after which failures.

    Attributes:
        retries: most attempts after the first; infinity for no limit.
        repeats_any_error: whether an error status and a lost answer are worth another attempt too.
            That is right for a call that asks whether the server is ready, since the call may run
            any number of times.
        repeats_lost: whether a lost answer is worth another attempt, since the server would not
            run the request twice.
    """

    retries: float = 3
    repeats_any_error: bool = False
    repeats_lost: bool = False


def next_wait(
    policy: RetryPolicy,
    attempt: int,
    now: float,
    deadline: float,
    failure: ClientFailure,
    jitter: float,
) -> float | None:
    """Return the seconds to wait before the next attempt; None if there is no next attempt.

    Args:
        policy: how often, and after which failures.
        attempt: number of the attempt that failed; the first is 0.
        now: the time, in seconds.
        deadline: when the call is worthless, on the same clock.
        failure: why the attempt failed.
        jitter: 0 to 1, drawn anew each time.
    """
    if attempt >= policy.retries or not _may_repeat(policy, failure):
        return None
    # 2**16 is far over MAX_WAIT_S; a larger exponent would overflow a float
    backoff = min(FIRST_WAIT_S * 2 ** min(attempt, 16), MAX_WAIT_S)
    retry_after = getattr(failure, "retry_after", None)
    wait: float = backoff * (1 + jitter) if retry_after is None else retry_after + backoff * jitter
    return wait if now + wait < deadline else None  # a later one would only delay the failure


def may_go_elsewhere(policy: RetryPolicy, attempt: int, failure: ClientFailure) -> bool:
    """Return whether another server, if there is one, may be tried at once.

    Servers without a connection do not count as attempts: of ten servers nine may be gone. The
    arguments are those of `next_wait`.
    """
    if isinstance(failure, NotConnected):
        return policy.retries > 0
    is_over_quota = getattr(failure, "status", 0) == _OVER_QUOTA
    return attempt < policy.retries and _may_repeat(policy, failure) and not is_over_quota


def surely_did_not_run(failure: ClientFailure) -> bool:
    """Return whether the request of the attempt that failed so surely did not run."""
    return isinstance(failure, NotConnected) or (
        isinstance(failure, InferenceFailed)
        and failure.status in _REFUSAL_STATUSES
        and failure.retry_after is not None
    )


def _may_repeat(policy: RetryPolicy, failure: ClientFailure) -> bool:
    is_lost = isinstance(failure, AnswerLost)
    if surely_did_not_run(failure) or (policy.repeats_lost and is_lost):
        return True
    return policy.repeats_any_error and (is_lost or isinstance(failure, InferenceFailed))
