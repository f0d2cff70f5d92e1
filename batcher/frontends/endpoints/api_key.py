"""The API key that a request names."""

from __future__ import annotations


def named_key(api_key: str, authorization: str) -> str:
    """Return the key that a request names by `X-Api-Key`, else by `Authorization: Bearer`.

    Empty if by neither.
    """
    scheme, _, token = authorization.partition(" ")
    return api_key.strip() or (token.strip() if scheme.lower() == "bearer" else "")
