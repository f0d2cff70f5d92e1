"""The content coding of an answer: gzip or deflate, as `Accept-Encoding` asks.

Deflate is a zlib stream (RFC 1950) here, never the raw form.
"""

from __future__ import annotations

import gzip
import zlib

from batcher.codecs.content import Buffer
from batcher.codecs.q_values import q_value
from batcher.core.bounded_cache import BoundedCache

COMPRESSION_LEVEL = 1
"""zlib's quickest level: numbers hardly get smaller at a higher one."""


MAX_VALUE_CHARS = 1024
"""Longest `Accept-Encoding` that is read; clients send less than 100 characters."""

_codings: BoundedCache[str, str] = BoundedCache(1 << 18)


def response_coding(accept: str) -> str:
    """Return the coding that `Accept-Encoding` prefers, `gzip` or `deflate`; empty for none.

    A value of more than MAX_VALUE_CHARS characters asks for none.
    """
    if len(accept) > MAX_VALUE_CHARS:
        return ""
    found = _codings.kept.get(accept)
    if found is None:
        found = _preferred(accept)
        # The text and its place in the dictionary; the coding is a constant.
        _codings.put(accept, found, 300 + len(accept))
    return found


def _preferred(accept: str) -> str:
    weights = {}
    for item in accept.lower().split(","):
        name, _, parameters = item.partition(";")
        weights[name.strip()] = _weight(parameters)
    found = {coding: weights.get(coding, weights.get("*", 0.0)) for coding in ("gzip", "deflate")}
    plain = weights.get("identity", 0.0)
    # of equals, max() takes the first: gzip
    best = max(found, key=found.__getitem__)
    return best if found[best] > 0 and found[best] >= plain else ""


def compress(body: Buffer, coding: str) -> bytes:
    """Return `body` in `coding`, `gzip` or `deflate`. Any thread."""
    if coding == "gzip":
        # without a time, equal answers are equal bytes
        return gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
    return zlib.compress(body, COMPRESSION_LEVEL)


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    return q_value(value) if name.strip() == "q" else 1.0
