"""The target of a request: a path and a query, in origin form or in absolute form; or `*`."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from batcher.core.error_text import brief
from batcher.errors import MalformedHttp

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)

MAX_PERCENT_CODES = 512
"""Most percent codes of a path: the names of a model and a version, 255 bytes each, all encoded."""


EVERYTHING = b"*"
"""The target of an `OPTIONS` that asks about the server as a whole."""


def split_target(target: bytes, method: bytes = b"GET") -> tuple[str, str]:
    """Return the path of `target` as it was sent, and its query.

    Raises:
        MalformedHttp: it is in another form, as `*` is for any `method` but `OPTIONS`, or its path
            is not UTF-8 once percent-decoded, or has more than MAX_PERCENT_CODES.
    """
    if target == EVERYTHING and method == b"OPTIONS":
        return "*", ""
    path, _, query = origin_form(target).partition(b"?")
    # Python takes up to 15 ms for the codes of a target of 8 KiB, and several readers decode them.
    if path.count(b"%") > MAX_PERCENT_CODES:
        raise MalformedHttp(
            f"expected a path of at most {MAX_PERCENT_CODES} percent codes; got {path.count(b'%')}"
        )
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError as err:
        raise MalformedHttp(
            f"expected a path in UTF-8, percent-encoded; got {brief(path, 200)}"
        ) from err
    return path.decode(), query.decode("latin-1")


def origin_form(target: bytes) -> bytes:
    """Return `target` without scheme and authority.

    Raises MalformedHttp if there is no path in it.
    """
    if target.startswith(b"/"):
        return target
    found = _ABSOLUTE.match(target)
    if found is None:
        raise MalformedHttp(f"expected a target that begins with /; got {brief(target, 200)}")
    rest = target[found.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
