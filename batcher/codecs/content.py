"""What a codec is handed and what it hands back."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import NamedTuple

from batcher.errors import DecodingError

Buffer = bytes | memoryview
"""Bytes that can be written to a socket as they are."""


class Content(NamedTuple):
    """A body and what its head said about it.

    Attributes:
        body: the bytes, any content coding undone.
        media_type: `type/subtype` in lower case.
        parameters: of the media type, names in lower case.
        max_image_pixels: most pixels that a picture may have.
    """

    body: Buffer
    media_type: str = ""
    parameters: Mapping[str, str] = {}
    max_image_pixels: int = 1 << 24

    def text(self) -> Buffer:
        """Return the body in UTF-8, without a byte order mark, recoded if its charset is another one.

        Raises:
            DecodingError: the charset is unknown or no encoding of text, or the body is not in it.
        """
        charset = self.parameters.get("charset", "utf-8")
        if charset.lower() in ("utf-8", "utf8", "us-ascii"):
            return bytes(self.body).removeprefix(BOM_UTF8)
        try:
            return bytes(self.body).decode(charset).encode().removeprefix(BOM_UTF8)
        except (LookupError, ValueError) as err:
            raise DecodingError(f"body: expected text in charset {charset!r:.80}: {err}") from err
