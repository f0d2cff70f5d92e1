"""Content codings of answers.

Gzip and deflate (a zlib stream, RFC 1950), as `Accept-Encoding` asks for them.
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache

LEVEL = 1
"""The quickest: numbers hardly get smaller by trying harder."""


@lru_cache(maxsize=1024)
def response_coding(accept: str) -> str:
    """Return `gzip` or `deflate` as an `Accept-Encoding` value prefers it, empty for no coding."""
    weights = {}
    for item in accept.lower().split(","):
        name, _, parameters = item.partition(";")
        weights[name.strip()] = _weight(parameters)
    found = {coding: weights.get(coding, weights.get("*", 0.0)) for coding in ("gzip", "deflate")}
    plain = weights.get("identity", 0.0)
    best = max(found, key=found.__getitem__)  # the first of equals
    return best if found[best] > 0 and found[best] >= plain else ""


def compress(body: bytes, coding: str) -> bytes:
    """Return `body` in `coding`, `gzip` or `deflate`. Any thread."""
    return gzip.compress(body, LEVEL, mtime=0) if coding == "gzip" else zlib.compress(body, LEVEL)


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0
