"""Values as they stand in a Redis, with what tells a whole and true one from any other.

    head: magic, format, time of its end, length | digest of key, head and body, 16 bytes | body

The digest is a blake2b. It covers the key, so a value that stands under another key is none. With a
secret the digest is made with that: nobody without the secret can write a value that counts.
Nothing of a value is read before its digest was compared, and nothing of it can run code.

The time is that of the machines' wall clocks, in seconds: with clocks that differ, values end
earlier or later by as much, but never later than `ttl_s` after they were read.
"""

from __future__ import annotations

from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final

MAGIC: Final = b"btch"
FORMAT: Final = 1
"""Increases with each change of how values, or the outputs in them, are written."""

DIGEST_BYTES: Final = 16
_HEAD: Final = Struct("<4sIdQ")
BEGIN_BYTES: Final = _HEAD.size + DIGEST_BYTES
"""Where the body begins: a multiple of 8, as `packing` wants."""


class Sealing:
    """Writes and checks values. Any thread."""

    def __init__(self, secret: str | None) -> None:
        """Make digests with `secret`; with None anybody can make them."""
        text = (secret or "").encode("utf-8", "surrogatepass")
        # A key of blake2b has at most 64 bytes.
        key = blake2b(text, digest_size=32).digest() if secret is not None else b""
        self._blank = blake2b(key=key, digest_size=DIGEST_BYTES)

    def seal(self, key: bytes, body: bytes, until: float) -> bytes:
        """Return the value for `key` with `body`, which counts up to the time `until`."""
        head = _HEAD.pack(MAGIC, FORMAT, until, len(body))
        return b"".join((head, self._digest(key, head, body), body))

    def open(self, key: bytes, value: bytes) -> float:
        """Return the time up to which `value`, found under `key`, counts.

        Raises ValueError: it is not what `seal` has made for this key.
        """
        if len(value) < BEGIN_BYTES:
            raise ValueError("too short")
        head, body = value[: _HEAD.size], memoryview(value)[BEGIN_BYTES:]
        magic, number, until, length = _HEAD.unpack(head)
        if magic != MAGIC or number != FORMAT:
            raise ValueError("of another format")
        if length != len(body):
            raise ValueError("of another length")
        if not compare_digest(self._digest(key, head, body), value[_HEAD.size : BEGIN_BYTES]):
            raise ValueError("of another digest")
        return float(until)

    def _digest(self, key: bytes, head: bytes, body: bytes | memoryview) -> bytes:
        found = self._blank.copy()
        found.update(b"%d:" % len(key))
        found.update(key)
        found.update(head)
        found.update(body)
        return found.digest()
