"""The reply of most routes: one JSON document, at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.formats.json_text import to_json
from batcher.frontends.endpoints.call import Reply


def json_reply(document: Any) -> Deferred[Reply]:
    """Return a Deferred that has fired with a 200 whose body is `document` as JSON."""
    return succeed(Reply(200, b"application/json", to_json(document)))
