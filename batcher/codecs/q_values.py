"""The weight `q` behind an item of `Accept` or `Accept-Encoding` (RFC 9110), as in `gzip;q=0.5`."""

from __future__ import annotations

MAX_CHARS = 32
"""Longest weight that is read; the standard writes at most five characters, as in `0.125`."""


def q_value(text: str) -> float:
    """Return the weight that `text` says, cut to 0 to 1; 0 if `text` is not a short number.

    `nan` is a number to Python and stays NaN; NaN loses every comparison.
    """
    if len(text) > MAX_CHARS:
        return 0.0
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
