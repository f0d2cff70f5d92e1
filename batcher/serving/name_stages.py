"""The stages that the requests of all models pass first."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from batcher.config.settings import ServerSettings
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.stages.once import OnceStage
from batcher.serving.stages.quotas import Quotas, QuotaStage, quotas_of
from batcher.serving.stages.stage import Stage
from batcher.workers.pool import CpuPool


class NameStages:
    """Puts the stages together as settings say. Reactor thread.

    Attributes:
        quotas: what limits the rows of each key; None limits nobody.
    """

    quotas: Quotas | None = None

    def __init__(
        self,
        lifecycle: ModelLifecycle,
        metrics: ServerMetrics,
        pool: CpuPool,
        clock: IReactorTime,
        settings: ServerSettings,
    ) -> None:
        """Begin with the stages that `settings` ask for, in front of the models of `lifecycle`.

        `metrics` count what is refused, and `pool` runs what is too slow for the loop.
        """
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._pool = pool
        self._clock = clock
        self._once: OnceStage | None = None
        self._kept = (0.0, 0)
        self.keep(settings.idempotency_ttl_s, settings.idempotency_max_bytes)
        self.limit(quotas_of(settings.quotas))

    def limit(self, quotas: Quotas | None) -> None:
        """Charge rows to `quotas` from now on."""
        self.quotas = quotas
        self._put()

    def keep(self, ttl: float, max_bytes: int) -> None:
        """Keep answers to requests with a key for `ttl` seconds; 0 keeps none.

        What is kept stays while `ttl` and `max_bytes` stay what they were.
        """
        if (ttl, max_bytes) == self._kept:
            return
        self._kept = (ttl, max_bytes)
        self._once = OnceStage(ttl, max_bytes, self._pool, self._clock) if ttl else None
        self._put()

    def _put(self) -> None:
        stages: list[Stage] = []
        if self.quotas is not None:
            stages.append(QuotaStage(self.quotas, self._metrics, self._clock.seconds))
        if self._once is not None:
            stages.append(self._once)
        self._lifecycle.set_name_stages(*stages)
