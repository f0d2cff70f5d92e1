"""Pages of lists in OpenAI's form: `after`, `limit`, `order` and `purpose` of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from batcher.core.error_text import brief
from batcher.errors import InvalidInput

MAX_QUERY_CHARS = 2048
"""Longest query that is read."""


def query_of(query: str, names: Sequence[str]) -> Mapping[str, str]:
    """Return the parameters of `query`. Raises InvalidInput: it has others than `names`."""
    if len(query) > MAX_QUERY_CHARS:
        raise InvalidInput(f"query: expected at most {MAX_QUERY_CHARS} characters; got more")
    found = dict(parse_qsl(query, keep_blank_values=True))
    unknown = found.keys() - set(names)
    if unknown:
        raise InvalidInput(f"query: expected {', '.join(names)}; got {brief(min(unknown))}")
    return found


def page_of(items: Sequence[dict[str, Any]], query: Mapping[str, str], most: int) -> dict[str, Any]:
    """Return the page of `items` that `query` asks for; `most` is as many as it may have.

    Raises InvalidInput.
    """
    text = query.get("limit", "")
    limit = int(text) if text.isdecimal() and len(text) < 9 else 0
    if text and not 1 <= limit <= most:
        raise InvalidInput(f"limit: expected a whole number of 1 to {most}; got {brief(text)}")
    after = query.get("after", "")
    start = 0
    if after:
        places = [place for place, item in enumerate(items, 1) if item["id"] == after]
        if not places:
            raise InvalidInput(f"after: expected the id of a listed one; got {brief(after)}")
        (start,) = places
    end = start + (limit or most)
    page = items[start:end]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": end < len(items),
    }
