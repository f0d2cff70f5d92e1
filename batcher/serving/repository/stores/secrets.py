"""Takes secrets out of the texts of errors before anybody reads them.

What a store's library says of a failure may hold an address with a signature in it, a header, or a
whole answer. So queries of addresses are cut off, and every value is hidden that stands in the
environment under a name such as `AWS_SECRET_ACCESS_KEY`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

MAX_CHARS = 600
"""Characters of an error that are shown: some stores answer with a page."""

_NAME = re.compile(r"(?i)key|secret|token|passw|credential|sas|connection_string|signature")
_QUERY = re.compile(r"(?<!<)\?[^\s\"'<>)]{3,}")  # `<?xml` is no query
_USER = re.compile(r"//[^\s/]+@")  # to the last @: a password may have one
_SIGNATURE = re.compile(
    r"(?i)(signature|credential|authorization|bearer)([=: ]{1,3})(?:(?:basic|bearer) +)?[^\s,\"'&]+"
)


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return `text` without secrets, on one line of at most MAX_CHARS characters."""
    for name, value in environment.items():
        if len(value) >= 6 and _NAME.search(name):
            text = text.replace(value, "…")
    text = _QUERY.sub("?…", text)
    text = _USER.sub("//…@", text)
    text = _SIGNATURE.sub(r"\1\2…", text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"
