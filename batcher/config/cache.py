"""Which answers of a model are kept, and for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import ByteSize, Field

from batcher.config.reading import Number
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
    """

    max_bytes: Bytes = ByteSize(64 * MIB)
    ttl_s: Duration = 3600.0
    min_score: Annotated[Number, Field(ge=0, le=1)] | None = None
