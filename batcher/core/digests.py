"""A digest of the inputs of a request: equal inputs have equal digests, and no others do.

What is hashed says by itself where each part of it ends. For each input, in the order of the names:

    length of the name, the name, dtype, shape, elements

The elements of BYTES have any length, so all their lengths stand before them: `ab`, `c` is not the
same as `a`, `bc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import numpy as np

from batcher.core.spec import Array

DIGEST_BYTES = 16
"""Bytes of a digest. Of 10**12 requests, two share one by chance with a probability of 10**-15."""

MAX_KNOWN_HEADS = 1024
"""Inputs whose name, dtype and shape, as bytes, are remembered; each takes some hundred bytes."""


class Digests:
    """Makes digests of inputs, behind a text that tells one use from another. Any thread."""

    def __init__(self, *texts: str) -> None:
        """Make digests for the use that `texts` name, such as a model and its version."""
        self._begin = blake2b(digest_size=DIGEST_BYTES)
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            self._begin.update(b"%d:%b" % (len(encoded), encoded))

    def of(self, inputs: Mapping[str, Array]) -> bytes:
        """Return the digest of `inputs`: name to array of a dtype of `DATATYPES`."""
        found = self._begin.copy()
        for name in sorted(inputs) if len(inputs) > 1 else inputs:
            array = inputs[name]
            found.update(_head(name, array.dtype, array.shape))
            if array.dtype.hasobject:
                texts = array.ravel().tolist()
                found.update(np.array([len(text) for text in texts], "<u8").data)
                found.update(b"".join(texts))
            else:
                # Hashing reads the array itself where it lies in one piece.
                found.update(array.data if array.flags.c_contiguous else array.tobytes())
        return found.digest()


@lru_cache(maxsize=MAX_KNOWN_HEADS)
def _head(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    # To write a shape as text takes longer than to hash some hundred bytes.
    return f"{len(name)}:{name}{dtype.str}{shape}".encode()


def digest_of(
    text: str, body: bytes | memoryview, files: Mapping[str, bytes] = MappingProxyType({})
) -> bytes:
    """Return the digest of `body` for the use that `text` names, and of `files` by name.

    Any thread.
    """
    found = blake2b(
        f"{len(text)}:{text}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES
    )
    for name, content in sorted(files.items()):
        about = f"{len(name)}:{name}{len(content)}:"
        found.update(about.encode("utf-8", "surrogatepass"))
        found.update(content)
    found.update(body)
    return found.digest()
