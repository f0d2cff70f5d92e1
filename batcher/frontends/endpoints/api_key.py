"""The API key that a request names."""

from __future__ import annotations


def named_key(api_key: str, authorization: str) -> str:
    """Return the API key of a request, empty if the request names none.

    Args:
        api_key: value of `X-Api-Key`, which counts first; empty without.
        authorization: value of `Authorization`, which counts if its scheme is Bearer.
    """
    scheme, _, token = authorization.partition(" ")
    return api_key.strip() or (token.strip() if scheme.lower() == "bearer" else "")
