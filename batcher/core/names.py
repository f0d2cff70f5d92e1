"""Which names a model or a version may have: those that one segment of a URL's path can hold."""

from __future__ import annotations

MAX_NAME_BYTES = 255
"""Bytes of a name: no file system takes a folder with a longer name."""

MAX_VERSION_DIGITS = 19
"""Digits of the number of a version: 2^63 has as many, and settings take no larger number."""


def name_fault(name: str) -> str:
    """Return why no path can hold `name`; empty if a path can. Any thread."""
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "a path takes it for a step up or none"
    if "/" in name:
        return "`/` separates the segments of a path"
    if not is_unicode(name):
        return "it is not UTF-8"
    if any(character < " " or character == "\x7f" for character in name):
        return "it has control characters"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it has more than {MAX_NAME_BYTES} bytes"
    return ""


def is_number(name: str) -> bool:
    """Return whether a folder of this `name` is that of a version: 1, 2, 03, … Any thread.

    A digit of another script is none: nobody can ask for it. Nor are more digits than
    MAX_VERSION_DIGITS.
    """
    return name.isascii() and name.isdecimal() and len(name) <= MAX_VERSION_DIGITS


def is_unicode(text: str) -> bool:
    """Return whether `text` can be written as UTF-8. Any thread.

    The name of a folder that is no UTF-8 cannot: Python reads halves of characters for its bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
