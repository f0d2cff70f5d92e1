"""Which files the jobs of a server may read and write: those below places that the operator lists.

A path is compared as the system would open it: links are followed, and `..` is taken away. An
address is compared segment by segment, and one with `..` in it is refused, whatever a store
would make of it. Disk thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from batcher.core.error_text import brief
from batcher.errors import ConfigError, Forbidden, InvalidInput
from batcher.serving.repository.stores.address import check_address, is_store, plain_address

MAX_PLACE_CHARS = 4096
"""Longest path or address: what Linux takes for a path."""


def allowed_place(place: str, prefixes: Sequence[str], base: Path, what: str) -> str:
    """Return `place`, as it is to be opened; `what` is `input` or `output`.

    `prefixes` are folders, those that are relative start from `base`, and addresses of stores.

    Raises:
        Forbidden: the place is below none of them.
        InvalidInput: it is neither an absolute path nor an address.
    """
    if len(place) > MAX_PLACE_CHARS or any(character < " " for character in place):
        raise InvalidInput(f"{what}: expected a path or an address; got {brief(place, 100)}")
    found = _address(place, prefixes, what) if is_store(place) else _path(place, prefixes, base)
    if found is None:
        raise Forbidden(
            f"{what}: expected a file below one of the places in the setting `jobs.{what}s`; got "
            f"{brief(place, 200)}"
        )
    return found


def _address(place: str, prefixes: Sequence[str], what: str) -> str | None:
    try:
        address = check_address(place, what)
    except ConfigError as err:
        raise InvalidInput(str(err)) from err
    segments = address.partition("://")[2].split("/")
    if any(segment in ("", ".", "..") for segment in segments) or "%" in address:
        return None
    stores = (plain_address(prefix) for prefix in prefixes if is_store(prefix))
    return address if any(address.startswith(f"{store}/") for store in stores) else None


def _path(place: str, prefixes: Sequence[str], base: Path) -> str | None:
    if not os.path.isabs(place):
        return None
    found = Path(os.path.realpath(place))
    folders = [Path(os.path.realpath(base / each)) for each in prefixes if not is_store(each)]
    inside = any(folder in found.parents for folder in folders)
    return str(found) if inside else None
