"""What a codec is handed and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
        """Return the body in UTF-8, recoded if its charset is another one.

        Raises:
            LookupError: the charset is unknown.
            UnicodeDecodeError: the body is not in that charset.
        """
        charset = self.parameters.get("charset", "utf-8").lower()
        if charset in ("utf-8", "utf8", "us-ascii"):
            return self.body
        return bytes(self.body).decode(charset).encode()
