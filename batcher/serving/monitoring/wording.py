"""Numbers as people read them."""

from __future__ import annotations


def number(value: float) -> str:
    """Return `value` with one place behind the point, without one where it is 0 or `value` large.

    >>> number(3.14), number(4.0), number(1234.5)
    ('3.1', '4', '1,234')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0")


def percent(share: float) -> str:
    """Return `share`, 0 to 1, as a percentage, which is 0 or 100 only where nothing is missing.

    >>> percent(0.824), percent(0.001), percent(0.9999), percent(1)
    ('82 %', 'under 1 %', 'over 99 %', '100 %')
    """
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 <= share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def time_text(seconds: float) -> str:
    """Return `seconds` in a unit that suits them, with at most three digits.

    >>> time_text(0.00425), time_text(12.34), time_text(4000)
    ('4.25 ms', '12.3 s', '1.1 h')
    """
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:,.1f} h"


def counted(count: float, noun: str) -> str:
    """Return how many there are, as a whole number.

    >>> counted(1, "row"), counted(2, "batch")
    ('1 row', '2 batches')
    """
    return f"{count:,.0f} {noun}{_ending(noun) if round(count) != 1 else ''}"


def several(mean: float, noun: str) -> str:
    """Return how many there are in the mean.

    >>> several(1.04, "request"), several(3.14, "request")
    ('1 request', '3.1 requests')
    """
    text = number(mean)
    return f"{text} {noun}{_ending(noun) if text != '1' else ''}"


def _ending(noun: str) -> str:
    return "es" if noun.endswith("ch") else "s"
