"""Calls to several servers, for the two forms whose calls wait side by side in one thread."""

from __future__ import annotations

import time
from random import random
from typing import Any, TypeVar

from batcher.client.attempts import Attempts
from batcher.client.balancer import Balancer, Course
from batcher.client.errors import ClientClosed, ClientFailure
from batcher.client.pooled_calls import PooledCalls

Result = TypeVar("Result")


class BalancedCalls:
    """Runs the calls of one client, each attempt at one of its servers."""

    def __init__(self, balancer: Balancer, home: PooledCalls[Any]) -> None:
        """Make the attempts at the servers of `balancer`; `home` waits and tells the time."""
        self._balancer = balancer
        self._home = home

    async def call(self, attempts: Attempts[Result]) -> Result:
        """Return what the operation's response says, after as many attempts as it takes."""
        course = Course(self._balancer, attempts)
        while True:
            try:
                return await self._attempt(attempts, course)
            except ClientFailure as err:
                if self._home.is_closed:
                    raise ClientClosed("expected an open client; got a closed one") from err
                wait = course.next_wait(attempts, err, self._home.seconds(), random())
            if wait:
                await self._home.sleep(wait)

    def close(self) -> list[Any]:
        """End idle connections, let no call begin, and return what has connections."""
        self._balancer.close()
        pools = [self._home, *self._balancer.calls]
        for pool in pools:
            pool.close()
        return pools

    async def _attempt(self, attempts: Attempts[Result], course: Course) -> Result:
        if not self._balancer.is_known:
            await self._wait(attempts)
        upstream = course.take(attempts)
        ended: BaseException | None = None
        try:
            return attempts.read(await upstream.calls.exchange(attempts), time.time())
        except BaseException as err:
            ended = err
            raise
        finally:
            self._balancer.give_back(upstream, ended)

    async def _wait(self, attempts: Attempts[Any]) -> None:
        """Wait until the registry has answered, or has not."""
        turn, waiting = self._home.turn()
        if not self._balancer.wait(lambda: self._home.call_from_thread(turn.grant, None)):
            return
        timer = self._home.timer(attempts, waiting)
        try:
            await waiting
        finally:
            self._home.stop(timer)
