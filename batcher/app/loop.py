"""The event loop of a process that serves: Twisted's asyncio reactor on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.main import installReactor

from batcher.core.standstill import TICK_S, Standstill


class ServerReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor, which a second SIGTERM or SIGINT does not disturb.

    Attributes:
        stood_still: tells for how many seconds the loop has stood still.
    """

    stood_still: Callable[[], float]

    def stop(self) -> None:
        """Begin to stop; does nothing if that has begun."""
        with suppress(ReactorNotRunning):
            super().stop()  # type: ignore[no-untyped-call]  # Twisted's has no annotations


def install_reactor(loop: asyncio.AbstractEventLoop) -> ServerReactor:
    """Install the reactor on `loop`, which becomes that of this thread, and return it."""
    asyncio.set_event_loop(loop)
    reactor = ServerReactor(loop)
    # Not the system's clock: when that is set back, timers ring late, and set forward, all at once.
    reactor.seconds = monotonic
    reactor.stood_still = Standstill(monotonic).stood_still
    installReactor(reactor)
    return reactor


def tick(loop: asyncio.AbstractEventLoop, reactor: ServerReactor) -> None:
    """Look at the clock, now and every `TICK_S`."""
    reactor.stood_still()
    loop.call_later(TICK_S, tick, loop, reactor)


def call_from_thread(
    loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object
) -> None:
    """Have `loop` call a function, from any thread."""
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)
