"""Calls of the blocking form to several servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random
from threading import Lock
from typing import Any, TypeVar

from batcher.client.attempts import Attempts
from batcher.client.balancer import Balancer, Course
from batcher.client.errors import ClientClosed, ClientFailure
from batcher.client.shared_sockets import MAX_WAIT_S

Result = TypeVar("Result")


class BalancedBlockingCalls:
    """Runs the calls of one client, each attempt at one of its servers. Any thread."""

    def __init__(
        self,
        balancer: Balancer,
        seconds: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Make the attempts at the servers of `balancer`."""
        self._balancer = balancer
        self._seconds = seconds
        self._sleep = sleep

    def call(self, attempts: Attempts[Result]) -> Result:
        """Return what the operation's response says, after as many attempts as it takes."""
        course = Course(self._balancer, attempts)
        while True:
            try:
                return self._attempt(attempts, course)
            except ClientFailure as err:
                if self._balancer.is_closed:
                    raise ClientClosed("expected an open client; got a closed one") from err
                wait = course.next_wait(attempts, err, self._seconds(), random())
            if wait:
                self._sleep(wait)

    def close(self) -> None:
        """End all connections; calls that have not ended raise `ClientClosed`."""
        self._balancer.close()
        for calls in self._balancer.calls:
            calls.close()

    def _attempt(self, attempts: Attempts[Result], course: Course) -> Result:
        if not self._balancer.is_known:
            self._wait(attempts)
        upstream = course.take(attempts)
        ended: BaseException | None = None
        try:
            return attempts.read(upstream.calls.sockets.exchange(attempts), time.time())
        except BaseException as err:
            ended = err
            raise
        finally:
            self._balancer.give_back(upstream, ended)

    def _wait(self, attempts: Attempts[Any]) -> None:
        """Wait until the registry has answered, or has not."""
        waiting = Lock()  # taken twice, as for a turn (`SharedSockets`)
        waiting.acquire()
        if not self._balancer.wait(waiting.release):
            return
        seconds_left = min(attempts.seconds_left(self._seconds()), MAX_WAIT_S)
        if not waiting.acquire(timeout=max(seconds_left, 0)):
            raise attempts.expired()
