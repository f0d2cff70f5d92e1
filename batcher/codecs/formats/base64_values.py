"""Bytes in JSON, as TensorFlow Serving writes them: an object whose only member is `b64`."""

from __future__ import annotations

from binascii import Error, a2b_base64
from typing import Any

from batcher.core.error_text import brief
from batcher.errors import InvalidInput

B64 = "b64"
"""The only member of such an object."""

_BLANKS = str.maketrans("", "", " \t\r\n")


def base64_text(value: Any) -> str | None:
    """Return the base64 in an object `{"b64": "…"}`; None if `value` is anything else."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    text = value.get(B64)
    return text if isinstance(text, str) else None


def from_base64(text: str) -> bytes:
    """Return the bytes that `text` stands for.

    Blanks and missing padding are fine, as in TensorFlow Serving: some encoders write lines.

    Raises InvalidInput: the text is no base64.
    """
    try:
        return a2b_base64(text, strict_mode=True)
    except (Error, ValueError):
        plain = text.translate(_BLANKS).rstrip("=")
    try:
        return a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except (Error, ValueError) as err:
        raise InvalidInput(f"b64: expected base64; got {brief(text, 60)}") from err
