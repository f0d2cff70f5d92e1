"""A call of HTTP's routes as parts of a ZeroMQ message, as a client writes them and reads answers.

`zeromq_messages.py` says what the parts are; this module has what clients need of it, and nothing
of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgpack

from batcher.errors import DecodingError

ID_BYTES: Final = 8
NOTICE_ID: Final = bytes(ID_BYTES)
"""The id of messages of the server that answer no request: no request may have this id."""


class AnswerHeader(NamedTuple):
    """The header of an answer to a call.

    Attributes:
        request_id: the id of the request, or NOTICE_ID.
        status: HTTP status; 0 in a notice.
        headers: header fields, names in lower case.
        error: text of an error that tells of no route; empty without.
    """

    request_id: bytes
    status: int
    headers: Mapping[str, str]
    error: str


def call_header(request_id: bytes, method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return the first part of a call; its body is the part behind it."""
    document: dict[str, Any] = {"method": method, "path": path}
    if headers:
        document["headers"] = dict(headers)
    packed: bytes = msgpack.packb(document)
    return request_id + packed


def read_answer_header(data: bytes) -> AnswerHeader:
    """Return what the first part of an answer says. Raises DecodingError."""
    try:
        document = msgpack.unpackb(data[ID_BYTES:])
        status, headers = document.get("status", 0), document.get("headers", {})
        error = document.get("error", "")
    except Exception as err:  # the unpacker raises several kinds, and all mean the same
        raise DecodingError("answer: expected a header of ZeroMQ; got other bytes") from err
    if not (isinstance(status, int) and isinstance(headers, dict) and isinstance(error, str)):
        raise DecodingError("answer: expected a status and headers; got others")
    return AnswerHeader(data[:ID_BYTES], status, headers, error)
