"""A request body with what its head says of it: the argument of every format's `decode`."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import NamedTuple

from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.error_text import brief
from batcher.errors import DecodingError

Buffer = bytes | memoryview
"""Bytes that can be written to a socket as they are."""

_CHARSETS = {name for name in aliases.values() if not name.endswith("_codec")} - {
    "mbcs",
    "rot_13",
    "utf_7",
} | {"utf_8_sig"}
"""Encodings of text that a client may name.

No other name is looked up: Python's own encodings (idna, punycode) take quadratic time, and Python
remembers every unknown name for ever.
"""


MAX_IMAGE_PIXELS = 1 << 24
"""Most pixels of one picture where nobody says otherwise, as the setting has it."""


class Files(NamedTuple):
    """The files that a request names in place of inputs.

    Attributes:
        contents: the bytes of each by its address; None before any file is fetched.
        max_image_pixels: most pixels of one picture.
    """

    contents: Mapping[str, bytes] | None
    max_image_pixels: int


class Content(NamedTuple):
    """A request body and what its head says of it.

    Attributes:
        body: bytes of the body, any content coding undone.
        media_type: `type/subtype` in lower case.
        parameters: parameters of the media type, names in lower case.
        max_image_pixels: most pixels that one picture may have.
        limits: most rows and bytes of an input.
        line_for_line: whether an empty line of text before the last line is an error, since the
            client counts on one line of the answer for each of the body; else it is passed over.
        files: what the body may name in place of inputs; None if it may name nothing.
    """

    body: Buffer
    media_type: str = ""
    parameters: Mapping[str, str] = {}
    max_image_pixels: int = MAX_IMAGE_PIXELS
    limits: DecodingLimits = NO_LIMITS
    line_for_line: bool = False
    files: Files | None = None

    def text(self) -> Buffer:
        """Return the body in UTF-8 without a byte order mark, recoded from its charset.

        Raises:
            DecodingError: the charset is not one of `_CHARSETS`, or the body is not in the charset.
        """
        charset = self.parameters.get("charset", "utf-8")
        if charset.lower() in ("utf-8", "utf8", "us-ascii"):
            if bytes(self.body[: len(BOM_UTF8)]) != BOM_UTF8:
                return self.body
            # a view, since a large body should not be copied
            return memoryview(self.body)[len(BOM_UTF8) :]
        name = normalize_encoding(charset).lower()
        name = aliases.get(name, name)
        if name not in _CHARSETS:
            raise DecodingError(
                f"body: expected text in charset {brief(charset)}, which is not known here"
            )
        try:
            return bytes(self.body).decode(name).encode().removeprefix(BOM_UTF8)
        except UnicodeError as err:
            raise DecodingError(f"body: expected text in charset {brief(charset)}: {err}") from err
