"""Has the instances of a model come and go, once a second, as `Autoscale` wants them.

An instance that cannot be had (no node has room, its model does not load there) keeps nothing from
being served: the others go on. The log says so once, and the instance is asked for again after a
minute. A cluster without room does not even fail: the instance waits for a node, and is told of
after half a minute; so a cluster that grows by itself knows what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from batcher.batching.autoscale import Autoscale, Demand
from batcher.core.alarm import Alarm
from batcher.workers.letting_go import let_go
from batcher.workers.scaling.passing_instances import PassingInstances

LOOK_S = 1.0
"""Seconds between two looks: an instance takes several to come."""

ASK_AGAIN_S = 60.0
"""Seconds after an instance could not be had until the next is asked for: a cluster changes seldom,
and each attempt starts an interpreter.
"""

WAIT_TOLD_S = 30.0
"""Seconds after which the log says that an instance has not come: most are loaded by then."""


class Autoscaler:
    """Follows the load of one model, from `start` until `end`. Reactor thread."""

    _demand: Callable[[], Demand]
    _tell: Callable[[str], None]

    def __init__(
        self,
        instances: PassingInstances,
        policy: Autoscale,
        demand: Callable[[], Demand],
        clock: IReactorTime,
        tell: Callable[[str], None],
    ) -> None:
        """Scale `instances` as `policy` says of what `demand` returns; nothing starts.

        `tell` writes into the log what has changed.
        """
        self._instances: PassingInstances | None = instances
        self._policy = policy
        self._demand, self._tell = demand, tell
        self._seconds = clock.seconds
        self._alarm = Alarm(clock, self._look)
        self._ask_again_at = self._waits_since = -inf
        self._is_told = False

    def start(self) -> None:
        """Begin: the model is loaded."""
        assert self._instances is not None, "what has ended does not start"
        self._instances.told = self._come
        self._look()

    def begin_with(self, wanted: int) -> None:
        """Want as many instances as were `wanted` of what the model replaces."""
        self._policy.begin_with(wanted, self._seconds())

    def end(self) -> None:
        """Leave the instances as they are: no more requests will come."""
        self._alarm.end()
        if self._instances is not None:
            self._instances.told = lambda reason: None
            self._instances = None
        let_go(self, "_demand", "_tell")

    def _look(self) -> None:
        """Have instances come or go, if others are wanted now."""
        instances, now = self._instances, self._seconds()
        assert instances is not None, "what has ended looks no more"
        wanted = self._policy.look(now, self._demand())
        if wanted != instances.wanted:
            self._tell(f"instances wanted: {wanted}, before {instances.wanted}")
        if not instances.coming:
            self._waits_since = now
        instances.scale(wanted, now >= self._ask_again_at)
        if instances.here >= wanted:
            self._is_told = False
        if (coming := instances.coming) and now - self._waits_since >= WAIT_TOLD_S:
            serving = f"meanwhile {instances.alive} of {wanted} serve"
            self._tell_once(
                f"an instance has not come for {WAIT_TOLD_S:g} s ({coming[0]}); {serving}"
            )
        self._alarm.set(now + LOOK_S)

    def _come(self, reason: str) -> None:
        """Hear that an instance has come, or for what `reason` it has not."""
        now, instances = self._seconds(), self._instances
        self._waits_since = now
        if not reason:
            self._is_told = False
            return
        self._ask_again_at = now + ASK_AGAIN_S
        assert instances is not None, "what has ended hears nothing"
        serving = f"{instances.alive} of {instances.wanted} serve"
        self._tell_once(
            f"an instance could not be had: {reason}; {serving}, and it is asked for again every "
            f"{ASK_AGAIN_S:g} s"
        )

    def _tell_once(self, text: str) -> None:
        """Write `text`, unless the same trouble was told already."""
        if not self._is_told:
            self._is_told = True
            self._tell(text)
