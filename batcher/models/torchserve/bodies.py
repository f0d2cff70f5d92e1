"""The body of a request becomes what a handler gets for it, and what a handler returns a body.

    media type of the body     the handler gets
    application/json           the value, as `body`; the bytes where they are no JSON
    text/…                     a text, as `body`
    multipart/form-data        a member for each part, by its name
    anything else              the bytes, as `body`

    the handler returns        body and media type of the answer
    bytes                      as they are; application/octet-stream
    a text                     its UTF-8; text/plain
    anything else              JSON, indented by two as TorchServe does; application/json

A media type that the handler sets goes before these.
"""

from __future__ import annotations

import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from batcher.errors import InvalidInput


def data_of(body: bytes, content_type: str) -> dict[str, Any]:
    """Return what a handler gets for a request. Raises InvalidInput: a broken multipart body."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _parts(body, content_type)
    return {"body": _value(body, kind)}


def _value(body: bytes, kind: str) -> Any:
    if kind == "application/json":
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return bytearray(body)
    if kind.startswith("text/"):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return bytearray(body)
    return bytearray(body)


def _parts(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the parts of a form by their names."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    found = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            has_type = part.get("content-type") is not None
            kind = part.get_content_type() if has_type else ""
            found[name] = _value(content, kind)
    if not found:
        raise InvalidInput("body: expected a form with named parts; got none")
    return found


def body_of(value: Any, content_type: str | None) -> tuple[bytes, bytes]:
    """Return the body of an answer, and its media type."""
    if isinstance(value, bytes | bytearray):
        body, kind = bytes(value), "application/octet-stream"
    elif isinstance(value, str):
        body, kind = value.encode(), "text/plain"
    else:
        body, kind = json.dumps(value, indent=2).encode(), "application/json"
    return body, (content_type or kind).encode()
