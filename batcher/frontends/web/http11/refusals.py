"""The errors of a request that is too large or too slow for its limits."""

from __future__ import annotations

from batcher.errors import HeadersTooLarge, RequestTimeout
from batcher.frontends.web.limits import Limits

MAX_HEADER_FIELDS = 128
"""Most header fields of a request; browsers behind several proxies send 50, and each field costs
more than a microsecond, and some 200 bytes besides its text.
"""

MAX_NAME_BYTES = 256
"""Most bytes of a field's name: twisted.web remembers 10,000 names for ever."""


def wrong_fields(fields: int, name_bytes: int) -> HeadersTooLarge:
    """Return the error for the last of `fields` fields, whose name has so many bytes."""
    if fields > MAX_HEADER_FIELDS:
        return HeadersTooLarge(f"expected at most {MAX_HEADER_FIELDS} header fields; got more")
    expected = f"names of header fields of at most {MAX_NAME_BYTES} bytes"
    return HeadersTooLarge(f"expected {expected}; got {name_bytes}")


def headers_too_large(limits: Limits) -> HeadersTooLarge:
    """Return the error for header fields over the limit."""
    return HeadersTooLarge(
        f"expected header fields of at most {limits.header} bytes together; got more"
    )


def late_head(limits: Limits) -> RequestTimeout:
    """Return the error for a head that took too long."""
    return RequestTimeout(
        f"expected the whole head within {limits.header_timeout:g} s; got a part of it"
    )


def late_body(limits: Limits, nbytes: int, seconds: float) -> RequestTimeout:
    """Return the error for a body of which `nbytes` bytes came in so many seconds."""
    return RequestTimeout(
        f"expected a body within {limits.body_timeout:g} s or at {limits.body_rate} bytes/s; "
        f"got {nbytes} bytes in {seconds:.0f} s"
    )
