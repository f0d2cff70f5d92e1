"""One call from its first attempt to its last, without any I/O.

The three forms of the client differ in how they send, wait and tell the time, and in nothing else.
Each form runs the same loop:

    attempts = options.attempts(operation, timeout, now)
    while True:
        request, seconds_left = attempts.next_request(now)
        try:
            return attempts.read(send(request, seconds_left), unix_time)
        except ClientFailure as err:
            sleep(attempts.next_wait(err, now, jitter))  # raises err if there is no next attempt
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, inf
from secrets import token_hex
from typing import Generic, TypeVar

from batcher.client.errors import AnswerLost, ClientFailure, DeadlineExceeded, NotConnected
from batcher.client.request_building import HttpRequest, Operation
from batcher.client.response_reading import HttpResponse, failure_of, unpacked
from batcher.client.retrying import (
    RetryPolicy,
    may_go_elsewhere,
    next_wait,
    surely_did_not_run,
)
from batcher.client.server_address import ServerAddress, checked_address

Result = TypeVar("Result")
_STEPS = 64
"""How many different times the server may be told for calls of one timeout.

A server keeps what it worked out for a JSON head that comes again byte for byte. So calls that
waited for their turn for a little longer, or shorter, tell the same time. What a step adds, a 64th,
costs nobody anything: the client leaves on time, and the server then drops the request.
"""

_KEY, _REPLAYED = "idempotency-key", "idempotency-replayed"

UNTIL_READY = RetryPolicy(float("inf"), repeats_any_error=True)
"""For waiting until a server is ready: attempts as long as there is time."""


class ServerHabits:
    """What a client has learnt of its server. Any thread.

    Attributes:
        keeps_answers: whether the server keeps the answers to requests with an `Idempotency-Key`;
            None until it has answered one. To a server that does not, no more keys are sent: each
            would make a head that the server has not seen before.
    """

    keeps_answers: bool | None = None


class Attempts(Generic[Result]):
    """The attempts of one call.

    The caller hands in the time with each method, all of one call from one clock that never goes
    back. Nothing is sent here, and nothing waits here.

    Attributes:
        deadline: when the call's time is over.
    """

    __slots__ = (
        "_began",
        "_failed",
        "_habits",
        "_is_keyed",
        "_key",
        "_lost",
        "_operation",
        "_policy",
        "_timeout",
        "deadline",
    )

    def __init__(
        self,
        operation: Operation[Result],
        policy: RetryPolicy,
        timeout: float,
        now: float,
        habits: ServerHabits | None = None,
    ) -> None:
        """Ask for `operation` for at most `timeout` seconds from `now` on.

        `habits` are what is known of the server; without them no `Idempotency-Key` is sent.
        """
        self._habits = habits
        self._key = ""
        self._is_keyed = False
        self._operation = operation
        self._policy = policy
        self._timeout = timeout
        self._began = now
        self._failed = 0
        self._lost = ""
        self.deadline = now + timeout

    @property
    def path(self) -> str:
        """Path of the operation's route."""
        return self._operation.path

    @property
    def is_keyed(self) -> bool:
        """Whether the last request had an `Idempotency-Key`, by which the server may know it."""
        return self._is_keyed

    def go_to(self, habits: ServerHabits) -> None:
        """Make the next attempt at the server with these habits."""
        self._habits = habits

    def seconds_left(self, now: float) -> float:
        """Return the seconds that are left; 0 or less once the time is over."""
        return self._timeout - (now - self._began)

    def expired(self) -> DeadlineExceeded:
        """Return the error of a call whose time is over."""
        return DeadlineExceeded(f"expected an answer within {self._timeout:g} s; got none")

    def next_request(self, now: float) -> tuple[HttpRequest, float]:
        """Return the request to send, and the seconds within which the response must be here.

        Raises:
            DeadlineExceeded: the time is over.
        """
        seconds_left = self.seconds_left(now)
        if seconds_left <= 0:
            raise self.expired()
        request = self._operation.request(self._told(seconds_left))
        return self._with_key(request), seconds_left

    def _with_key(self, request: HttpRequest) -> HttpRequest:
        """Return `request` with the key of this call, if it infers and the server may keep keys."""
        habits = self._habits
        self._is_keyed = (
            request.method == "POST" and habits is not None and habits.keeps_answers is not False
        )
        if not self._is_keyed:
            return request
        self._key = self._key or f'"{token_hex(16)}"'
        return request._replace(headers={**request.headers, _KEY: self._key})

    def _told(self, seconds_left: float) -> float:
        """Return the seconds that the server is told, in steps: it reads a head that it knows."""
        if seconds_left == inf:
            return inf
        step = self._timeout / _STEPS
        return ceil(seconds_left / step) * step

    def read(self, response: HttpResponse, unix_time: float) -> Result:
        """Return what `response` says; `unix_time` is in seconds since 1970.

        Raises:
            InferenceFailed: the response tells of an error.
            MalformedAnswer: the response cannot be read.
        """
        response = unpacked(response)
        failure = failure_of(response, unix_time)
        if failure is not None:
            raise failure
        if self._is_keyed and self._habits is not None:
            self._habits.keeps_answers = _REPLAYED in response.headers
        return self._operation.read(response)

    def next_wait(
        self, failure: ClientFailure, now: float, jitter: float, has_other: bool = False
    ) -> float:
        """Return the seconds to wait before the next attempt; `jitter` is 0 to 1.

        `has_other` says that another server can be asked, one that this call has not tried.

        An answer that is lost is asked for again once: a request may be what ends the server.

        Raises:
            ClientFailure: there is no next attempt.
        """
        policy, habits = self._policy, self._habits
        if self._is_keyed and habits and habits.keeps_answers and not self._lost:
            policy = replace(policy, repeats_lost=True)
        if isinstance(failure, AnswerLost):
            self._lost = str(failure)
        if has_other and may_go_elsewhere(policy, self._failed, failure) and now < self.deadline:
            self._failed += not isinstance(failure, NotConnected)
            return 0.0
        wait = next_wait(policy, self._failed, now, self.deadline, failure, jitter)
        if wait is None:
            raise self._of_all(failure)
        self._failed += 1
        return wait

    def _of_all(self, failure: ClientFailure) -> ClientFailure:
        """Return how the call ends whose last attempt ended with `failure`.

        That attempt may surely not have run, and an earlier one may have: the call may have run.
        """
        if self._lost and self._key and surely_did_not_run(failure):
            return AnswerLost(f"{self._lost}; asked again: {failure}")
        return failure


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What holds for all calls of a client.

    Attributes:
        address: where the server is.
        timeout: seconds for a call that names no timeout.
        policy: when a call is repeated.
        common_lines: header lines of every request, the API key among them. They are left out of
            the `repr`, since the key is a secret.
        habits: what is learnt of the server.
        max_answer_bytes: longest answer, its head included. Those of servers have no such bound:
            how large results are, models decide.
    """

    address: ServerAddress = field(repr=False)
    timeout: float
    policy: RetryPolicy
    common_lines: str = field(repr=False)
    habits: ServerHabits = field(default_factory=ServerHabits, repr=False, compare=False)
    max_answer_bytes: float = inf

    def attempts(
        self,
        operation: Operation[Result],
        timeout: float | None,
        now: float,
        policy: RetryPolicy | None = None,
    ) -> Attempts[Result]:
        """Return the attempts of a call that begins `now`; None takes the client's own value.

        Raises:
            ValueError: `timeout` is not more than 0 seconds.
        """
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return Attempts(operation, policy or self.policy, seconds, now, self.habits)


def checked_options(address: str, timeout: float, retries: int, api_key: str = "") -> ClientOptions:
    """Return a client's arguments as options.

    Raises:
        ValueError: an argument is not what it should be.
    """
    server = checked_address(address)
    if retries < 0:
        raise ValueError(f"retries: expected 0 or more; got {retries}")
    # the key itself is not shown: it is a secret
    if not all("!" <= character <= "~" for character in api_key):
        raise ValueError("api_key: expected visible ASCII characters; got others")
    # numbers hardly get smaller, and packing costs the server more than the network gains
    lines = f"host: {server.authority}\r\naccept-encoding: identity\r\n"
    if server.credentials:
        lines += f"authorization: Basic {server.credentials}\r\n"
    if api_key:
        lines += f"x-api-key: {api_key}\r\n"
    return ClientOptions(server, checked_timeout(timeout), RetryPolicy(retries), lines)


def checked_timeout(timeout: float) -> float:
    """Return `timeout`, in seconds.

    Raises:
        ValueError: `timeout` is not more than 0.
    """
    if not timeout > 0:  # so written, NaN is refused too
        raise ValueError(f"timeout: expected more than 0 seconds; got {timeout!r}")
    return timeout
