"""The stages of a version: what its settings and its model ask for, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.model_settings import ModelSettings
from batcher.core.error_text import cut
from batcher.core.spec import ModelSpec
from batcher.models.protocol import LoadedModel
from batcher.serving.caching.content import Content
from batcher.serving.caching.inputs import InputStores, KeptInputs
from batcher.serving.caching.redis.opening import redis_answers
from batcher.serving.metrics import ServerMetrics
from batcher.serving.stages.cache import CacheStage
from batcher.serving.stages.hooks import HookStage
from batcher.serving.stages.stage import Stage
from batcher.workers.pools import Pools

_log = Logger()


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
) -> Iterator[Stage]:
    """Yield the stages of a version that was `loaded`, the first one first.

    `deadline` returns the deadline, a time in seconds, of a request without one of its own;
    `content` is that of the version's files, where answers are shared or inputs are kept, in
    `inputs`.
    """
    name = spec.name, spec.version
    if settings.cache is not None:
        surroundings = deadline, pools.cpu, clock
        level, counts = settings.default_priority, metrics.caches.of(*name)
        redis, address = None, settings.cache.redis
        if content is not None and address is not None:
            redis = redis_answers(address, settings, spec, content.read(), counts, clock)
        yield CacheStage(settings.cache, spec, level, *surroundings, counts, redis)
    if loaded.preprocess is not None or loaded.postprocess is not None:
        kept, cache = None, settings.cache
        if loaded.preprocess is not None and content is not None and cache and cache.inputs:
            kept = KeptInputs(inputs, cache, clock, metrics.caches.of(*name).prepared)
            content.read_hooks().addCallbacks(kept.begin, partial(_not_kept, name))
        arguments = loaded, deadline, metrics.model(*name), clock.seconds, settings
        yield HookStage(pools.cpu, spec, *arguments, kept)


def _not_kept(name: tuple[str, str], failure: Failure) -> None:
    _log.warn(
        "model {title}: cache.inputs keeps nothing of preprocess: expected files that stay as they "
        "are while the model is loaded; got {why}",
        title="/".join(name),
        why=cut(failure.getErrorMessage(), 300),
    )
