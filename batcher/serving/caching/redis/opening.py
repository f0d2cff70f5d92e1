"""Puts together what shares answers through a Redis."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.caching.content import Content
from batcher.serving.caching.redis.answers import RedisAnswers
from batcher.serving.caching.redis.link import RedisLink, connector
from batcher.serving.caching.redis.store import RedisStore


def redis_answers(
    settings: ModelSettings,
    spec: ModelSpec,
    content: Content | None,
    counts: CacheCounts,
    clock: IReactorTime,
) -> RedisAnswers | None:
    """Return the answers of `spec` that are shared through a Redis; None where none are.

    `content` is that of the version's files. Reactor thread.
    """
    address = settings.cache.redis if settings.cache is not None else None
    if settings.cache is None or address is None or content is None:
        return None
    link = RedisLink(address, clock, connector(address, clock))
    title = f"{spec.name}/{spec.version}"
    store = RedisStore(link, clock, counts.redis, title, address.place)
    rule = settings.cache.min_score, settings.finite_outputs
    return RedisAnswers(settings.cache, rule, spec, content.read(), store, counts)
