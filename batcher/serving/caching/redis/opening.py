"""Puts together what shares answers through a Redis; its library is an extra."""

from __future__ import annotations

from importlib.util import find_spec

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.config.cache import Cache
from batcher.config.model_settings import ModelSettings
from batcher.config.redis_address import RedisAddress
from batcher.core.installing import EXTRAS, how_to_install
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.caching.redis.answers import RedisAnswers
from batcher.serving.caching.redis.link import RedisLink, connector
from batcher.serving.caching.redis.store import RedisStore


def shares_answers(settings: Cache) -> bool:
    """Return whether `settings` ask for a Redis.

    Raises ConfigError: the extra `redis` is not installed.
    """
    if settings.redis is None:
        return False
    if find_spec(EXTRAS["redis"]) is None:
        raise ConfigError(
            f"cache.store: expected the extra redis for {settings.redis.place}; got none. It "
            f"comes with {how_to_install('redis')}"
        )
    return True


def redis_answers(
    address: RedisAddress,
    settings: ModelSettings,
    spec: ModelSpec,
    content: Deferred[bytes],
    counts: CacheCounts,
    clock: IReactorTime,
) -> RedisAnswers:
    """Return the answers of `spec` that are shared through the Redis at `address`.

    `content` fires with the digest of the version's files. Reactor thread.
    """
    assert settings.cache is not None
    link = RedisLink(address, clock, connector(address, clock))
    title = f"{spec.name}/{spec.version}"
    store = RedisStore(link, clock, counts.redis, title, address.place)
    rule = settings.cache.min_score, settings.finite_outputs
    return RedisAnswers(settings.cache, rule, spec, content, store, counts)
