"""Pages of other origins: which of them may read answers, and how their browsers learn of it.

A browser shows a page an answer of another origin only if the answer allows the page's origin. What
is not as simple as a form, such as a JSON body, the browser first asks for by `OPTIONS` (a
preflight). Nothing of this protects the server: it keeps pages from reading with their visitor's
rights what the visitor's browser can reach.

| `cors_origins` | a page of an origin in the list | any other page |
|---|---|---|
| empty | no field | no field |
| `[https://app.example]` | its origin, with credentials | no field |
| `["*"]` | | `*`, never with credentials |

With credentials, so that cookies for a proxy that stands in front reach that proxy.
"""

from __future__ import annotations

from batcher.frontends.endpoints.call import Fields, Headers

MAX_AGE_S = b"600"
"""Seconds for which a browser keeps the answer to a preflight: an origin that is taken out of the
list is forgotten in that time.
"""

_VARY = (b"Vary", b"Origin")  # else a cache would give one origin the answer for another
_EXPOSED = (
    b"Access-Control-Expose-Headers",
    b"Idempotency-Replayed, Inference-Header-Content-Length, Retry-After, Server-Timing, X-Cache, "
    b"X-Request-Id",
)
"""Fields of our answers that a page cannot read unless they are named."""


class Cors:
    """Which origins may read answers."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """Allow `origins`; `*` is every origin."""
        self._listed = frozenset(origin.encode() for origin in origins if origin != "*")
        self._any = "*" in origins

    def fields(self, headers: Headers) -> Fields:
        """Return the fields of every answer to a request with `headers`."""
        allowed = self._allowed(headers.get(b"origin", b""))
        return (_VARY, *allowed, _EXPOSED) if allowed else (_VARY,)

    def preflight(self, headers: Headers, methods: tuple[str, ...]) -> Fields:
        """Return the further fields of an answer to `OPTIONS`.

        There are none unless a browser asks for a page that is allowed. `methods` are those of the
        path. Every header may be sent: none of them gives a client a right.
        """
        asked = b"access-control-request-method" in headers
        if not (asked and self._allowed(headers.get(b"origin", b""))):
            return ()
        wanted = headers.get(b"access-control-request-headers")
        names: Fields = () if wanted is None else ((b"Access-Control-Allow-Headers", wanted),)
        return (
            (b"Access-Control-Allow-Methods", ", ".join(methods).encode()),
            *names,
            (b"Access-Control-Max-Age", MAX_AGE_S),
        )

    def _allowed(self, origin: bytes) -> Fields:
        if origin in self._listed:
            return (
                (b"Access-Control-Allow-Origin", origin),
                (b"Access-Control-Allow-Credentials", b"true"),
            )
        if self._any and origin:
            return ((b"Access-Control-Allow-Origin", b"*"),)
        return ()
