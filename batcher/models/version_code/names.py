"""Names of packages over version folders: what a fresh interpreter needs to find the folder.

A name is `v`, a number, `_`, and the folder's path, in which every byte but a letter or a digit is
`_` and two hexadecimal digits.
"""

from __future__ import annotations

import os
import re

PREFIX = "batcher.models.version_code."
"""What the names of all packages begin with."""

_PACKAGE = re.compile(r"v(\d+)_((?:[0-9A-Za-z]|_[0-9a-f]{2})+)")
_ESCAPE = re.compile(rb"_([0-9a-f]{2})")
_PLAIN = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def package_name(folder: str, number: int) -> str:
    """Return the full name of the package over `folder` that load `number` makes. Any thread."""
    path = "".join(chr(c) if c in _PLAIN else f"_{c:02x}" for c in os.fsencode(folder))
    return f"{PREFIX}v{number}_{path}"


def package_of(module: str) -> str:
    """Return the package of a module, both in full; empty for a module of no version.

    Any thread.
    """
    if not module.startswith(PREFIX):
        return ""
    package = module[len(PREFIX) :].partition(".")[0]
    return PREFIX + package if _PACKAGE.fullmatch(package) else ""


def folder_of(package: str) -> str:
    """Return the folder of a package. Any thread."""
    return parts_of(package)[1]


def parts_of(package: str) -> tuple[int, str]:
    """Return the number of the load that made a package, and its folder. Any thread."""
    found = _PACKAGE.fullmatch(package[len(PREFIX) :])
    assert found is not None, package
    folder = _ESCAPE.sub(lambda each: bytes([int(each[1], 16)]), found[2].encode())
    return int(found[1]), os.fsdecode(folder)
