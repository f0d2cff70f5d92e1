"""Routes that people try because other servers have them, and the route that does the same here."""

from __future__ import annotations

import re

_HINTS = (
    (
        r"(/v\d+|/api)?/models/?|/v2/?repository/?",
        "POST /v2/repository/index, which lists the models",
    ),
    (r"/(health|healthz|ready|ready[sz]|status|ping|up|startupz?)(/ready)?/?", "GET /readyz"),
    (r"/(health/)?(live|alive|liveness)/?", "GET /livez"),
    (r"/(readiness|v1/health)/?", "GET /readyz"),
    (r"/(prometheus|stats|api/metrics|metrics/)/?", "GET /metrics"),
    (r"/(swagger|redoc|api|api/docs|help)(\.json|/)?", "GET /docs, or /openapi.json for programs"),
    (r"/(version|info|server)/?", "GET /v2"),
    (r"(/v\d+|/api)?/(infer|inference|invoke|invocations|run|score)/?", "POST /predict"),
    (r"(/v\d+|/api)/predict/?|/predict/", "POST /predict"),
    (r"(/v\d+|/api)?/predictions?/[^/]+/?", "POST /models/NAME/predict"),
    (
        r"/models?/[^/]+/(infer|inference|invoke|predictions?|predict)/?",
        "POST /models/NAME/predict",
    ),
    (r"/predict/[^/]+/?", "POST /models/NAME/predict"),
    (r"/models/[^/]+/?", "GET /v2/models/NAME"),
    (r"/v2/models/[^/]+/(predict|infer/)/?", "POST /v2/models/NAME/infer"),
    (r"/v1/(chat/)?completions/?", "POST /models/NAME/predict"),
    (r"(/v\d+|/api)?/(embeddings?|embed)/?", "POST /v1/embeddings"),
)
_PATTERNS = tuple((re.compile(pattern), hint) for pattern, hint in _HINTS)

MAX_PATH_CHARS = 200
"""Longest path that is compared: no route of another server is longer."""


def route_like(path: str) -> str:
    """Return the method and route that somebody wants who tries `path`; empty if unknown."""
    if len(path) > MAX_PATH_CHARS:
        return ""
    return next((hint for pattern, hint in _PATTERNS if pattern.fullmatch(path)), "")
