"""Which answers of a model are kept, where, and for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import ByteSize, Field

from batcher.config.reading import Number
from batcher.config.redis_address import LOCAL, RedisAddress, StoreAddress, redis_address
from batcher.config.traffic import Duration
from batcher.config.values import MIB, Bytes, Section


class Cache(Section):
    """Answers that are kept, so that equal requests are answered without the model.

    Attributes:
        max_bytes: most bytes that the answers of one version take in memory; those that were used
            longest ago go first.
        ttl_s: time for which an answer is kept, as `10m`; a number is seconds.
        min_score: an answer is kept only if the best score of each of its rows is at least that;
            None keeps every answer.
        store: `local` keeps answers in the memory of this server alone; with the address of a
            Redis server, such as `redis://redis.example:6379/0`, several servers share them.
        secret: text that the servers which share a Redis have in common, and nobody else; a value
            that was not written with it is no answer. None accepts what anybody has written there.
        inputs: whether what decoding and `preprocess` make of inputs is kept too, in `max_bytes`
            each, for all versions and models that would make the same.
    """

    max_bytes: Bytes = ByteSize(64 * MIB)
    ttl_s: Duration = 3600.0
    min_score: Annotated[Number, Field(ge=0, le=1)] | None = None
    store: StoreAddress = Field(LOCAL, repr=False)
    secret: Annotated[str, Field(min_length=16)] | None = Field(None, repr=False)
    inputs: bool = False

    @property
    def redis(self) -> RedisAddress | None:
        """Where the Redis is that answers are shared through; None without one."""
        return None if self.store == LOCAL else redis_address(self.store)
