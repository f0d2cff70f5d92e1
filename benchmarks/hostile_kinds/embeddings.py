"""`POST /v1/embeddings` at its worst: texts, token ids and lists of them, and large answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.hostile_kinds.bodies import ALL_CODINGS, Body
from benchmarks.hostile_kinds.kind import LIMIT, repeated
from benchmarks.hostile_kinds.texts import JSON, NEST, numbered

PATH = "/v1/embeddings"
MOST_TEXTS = 2048
"""Texts, or lists of ids, that a request may hold."""

MOST_IDS = 1 << 21
"""Token ids that a request may hold."""

SMALL = 240_000
"""Bytes of a body that is not read elsewhere for its size alone."""

HEAD, END = b'{"model":"embedder","input":[', b"]}"
BASE64 = b'{"model":"embedder","encoding_format":"base64","input":['


def many(unit: bytes, limit: int = LIMIT) -> Callable[[], bytes]:
    """Return what makes an input of as many `unit`s as fit into `limit` bytes."""
    return partial(repeated, HEAD, unit, END, limit=limit)


def some(unit: bytes, count: int, head: bytes = HEAD) -> Callable[[], bytes]:
    """Return what makes an input of `count` times `unit`."""
    return lambda: head + b",".join([unit] * count) + END


def _list_of(count: int) -> bytes:
    return b"[" + b",".join([b"1"] * count) + b"]"


def _uneven() -> bytes:
    """Return one list that is as long as lists may be, and as many short ones as there may be."""
    lists = (_list_of(MOST_IDS), *[b"[1]"] * (MOST_TEXTS - 1))
    return HEAD + b",".join(lists) + END


def _body(name: str, make: Callable[[], bytes], codings: tuple[str, ...] = ()) -> Body:
    return Body(f"embeddings_{name}", PATH, JSON, make, codings=codings)


_LONG_TEXT = b'"' + b"a" * (LIMIT // MOST_TEXTS - 64) + b'"'

EMBEDDING_BODIES = (
    _body("small lists", many(b"[1]", SMALL), ALL_CODINGS),
    _body("small ids", many(b"1", SMALL)),
    _body("small empty lists", many(b"[]", SMALL)),
    _body("small maps", many(b"{}", SMALL)),
    _body("lists", many(b"[1]"), ALL_CODINGS),
    _body("empty lists", many(b"[]")),
    _body("nests", many(NEST)),
    _body("ids", many(b"1")),
    _body("distinct ids", partial(numbered, HEAD, b"%d", END)),
    _body("most ids", some(b"1", MOST_IDS)),
    _body("most lists of ids", lambda: some(_list_of(MOST_IDS // MOST_TEXTS), MOST_TEXTS)()),
    _body("uneven lists", _uneven),
    _body("text", partial(repeated, HEAD + b'"', b"a", b'"' + END, b""), ALL_CODINGS),
    _body("escapes", partial(repeated, HEAD + b'"', rb"\u0001", b'"' + END, b"")),
    _body("texts", many(b'"a"'), ALL_CODINGS),
    _body("long texts", some(_LONG_TEXT, MOST_TEXTS)),
    _body("text behind ids", partial(repeated, HEAD, b"1", b',"a"' + END)),
    _body("answer", some(b'"a"', MOST_TEXTS)),
    _body("answer base64", some(b'"a"', MOST_TEXTS, BASE64)),
)
