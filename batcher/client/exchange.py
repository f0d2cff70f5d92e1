"""One call from its first attempt to its last, without any I/O.

What to send, how to read it, how long to wait.

The three forms of the client differ in how they send, wait and tell the time, and in nothing else.
Each of them turns the same wheel:

    exchange = terms.exchange(question, timeout, now)
    while True:
        outgoing, left = exchange.attempt(now)
        try:
            return exchange.read(send(outgoing, left), wall)
        except ClientFailure as err:
            sleep(exchange.wait(err, now, jitter))  # raises err where there is nothing to wait for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from batcher.client.answers import Answer, failure_of
from batcher.client.errors import ClientFailure, DeadlineExceeded
from batcher.client.questions import Outgoing, Question
from batcher.client.retrying import RetryPolicy, next_wait

Result = TypeVar("Result")
PATIENT = RetryPolicy(float("inf"), patient=True)
"""For waiting until a server is ready: as long as there is time."""


class Exchange(Generic[Result]):
    """One call. Its caller's clock is handed in; it starts nothing."""

    __slots__ = ("_attempt", "_began", "_headers", "_policy", "_question", "_timeout")

    def __init__(
        self,
        question: Question[Result],
        policy: RetryPolicy,
        timeout: float,
        now: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Ask `question`, with `headers` besides its own, for at most `timeout` seconds from `now` on."""
        self._question = question
        self._headers = headers or {}
        self._policy = policy
        self._timeout = timeout
        self._began = now
        self._attempt = 0

    def left(self, now: float) -> float:
        """Return how many seconds are left; none or fewer once the time is over."""
        return self._timeout - (now - self._began)

    def expired(self) -> DeadlineExceeded:
        """Return what a call whose time is over fails with."""
        return DeadlineExceeded(f"expected an answer within {self._timeout:g} s; got none")

    def attempt(self, now: float) -> tuple[Outgoing, float]:
        """Return what to send, and the seconds within which it must be answered.

        Raises DeadlineExceeded.
        """
        left = self.left(now)
        if left <= 0:
            raise self.expired()
        outgoing = self._question.outgoing(left)
        return replace(outgoing, headers={**outgoing.headers, **self._headers}), left

    def read(self, answer: Answer, wall: float) -> Result:
        """Return what `answer` says; `wall` is the time in seconds since 1970.

        Raises InferenceFailed or MalformedAnswer.
        """
        failure = failure_of(answer, wall)
        if failure is not None:
            raise failure
        return self._question.read(answer)

    def wait(self, failure: ClientFailure, now: float, jitter: float) -> float:
        """Return for how long to wait before the next attempt.

        Raises `failure` where there shall be none.
        """
        wait = next_wait(
            self._policy, self._attempt, now, self._began + self._timeout, failure, jitter
        )
        if wait is None:
            raise failure
        self._attempt += 1
        return wait


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all calls of a client.

    Attributes:
        address: `http://host:port`, with a path behind it if the server has one, without a slash at
            its end.
        timeout: seconds for a call that names none.
        policy: when a call is repeated.
        headers: header fields of every request; they hold the key, a secret.
    """

    address: str
    timeout: float
    policy: RetryPolicy
    headers: Mapping[str, str] = field(repr=False)

    def exchange(
        self,
        question: Question[Result],
        timeout: float | None,
        now: float,
        policy: RetryPolicy | None = None,
    ) -> Exchange[Result]:
        """Return a call that begins `now`. Raises ValueError if `timeout` is no time."""
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return Exchange(question, policy or self.policy, seconds, now, self.headers)


def checked_terms(address: str, timeout: float, retries: int, api_key: str = "") -> Terms:
    """Return the terms that a client's arguments are.

    Raises:
        ValueError: one of them is not what it should be.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"address: expected one such as http://localhost:8080; got {address!r}")
    if retries < 0:
        raise ValueError(f"retries: expected 0 or more; got {retries}")
    if not all("!" <= character <= "~" for character in api_key):
        raise ValueError("api_key: expected visible ASCII characters; got others")
    headers = {"x-api-key": api_key} if api_key else {}
    return Terms(address.rstrip("/"), checked_timeout(timeout), RetryPolicy(retries), headers)


def checked_timeout(timeout: float) -> float:
    """Return `timeout`, some seconds. Raises ValueError."""
    if not timeout > 0:
        raise ValueError(f"timeout: expected more than 0 seconds; got {timeout!r}")
    return timeout
