"""The stages of a version: what its settings and its model ask for, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec
from batcher.models.protocol import LoadedModel
from batcher.serving.caching.content import Content
from batcher.serving.caching.inputs import InputStores, prepared_inputs
from batcher.serving.caching.redis.opening import redis_answers
from batcher.serving.metrics import ServerMetrics
from batcher.serving.stages.cache import CacheStage
from batcher.serving.stages.hooks import HookStage
from batcher.serving.stages.stage import Stage
from batcher.workers.pools import Pools


def version_stages(
    spec: ModelSpec,
    settings: ModelSettings,
    loaded: LoadedModel,
    content: Content | None,
    inputs: InputStores,
    deadline: Callable[[], float],
    pools: Pools,
    clock: IReactorTime,
    metrics: ServerMetrics,
    computed: Callable[[], Deferred[None]],
) -> Iterator[Stage]:
    """Yield the stages of a version that was `loaded`, the first one first.

    `deadline` and `computed` as in HookStage; `content` is None where nobody needs it.
    """
    if settings.cache is not None:
        level, counts = settings.default_priority, metrics.caches.of(spec.name, spec.version)
        redis = redis_answers(settings, spec, content, counts, clock)
        yield CacheStage(settings.cache, spec, level, deadline, pools.cpu, clock, counts, redis)
    if loaded.preprocess is not None or loaded.postprocess is not None:
        digests = content if loaded.preprocess is not None else None
        metered = metrics.model(spec.name, spec.version), clock, settings, computed
        kept = prepared_inputs(spec, inputs, settings.cache, clock, metrics.caches, digests)
        yield HookStage(pools.cpu, spec, loaded, deadline, *metered, kept)
