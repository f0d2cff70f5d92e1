"""Answers of HTTP/1.1 as a client reads them, strictly.

Whatever is not well formed is an assertion that fails.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgpack

_START = re.compile(rb"HTTP/1\.1 (\d\d\d) ([^\r\n]+)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\0]*)")


class Answer(NamedTuple):
    """One whole answer.

    Attributes:
        status: its status.
        fields: its header fields in their order, names in lower case.
        body: its body, chunks put together.
    """

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the value of the field `name`, None if it is absent; twice is an error."""
        values = [value for key, value in self.fields if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def decoded(self) -> Any:
        """Return the value of a body in JSON or MessagePack, whichever its type says."""
        if self.header("content-type") == "application/msgpack":
            return msgpack.unpackb(self.body)
        return json.loads(self.body)


def parse_answers(data: bytes, methods: list[str], over: bool) -> tuple[list[Answer], bytes]:
    """Return the whole answers in `data` and what is left behind them.

    Args:
        data: everything that came.
        methods: of the requests in their order; GET where it ends.
        over: whether nothing more comes, which is how an answer without a length ends.
    """
    answers: list[Answer] = []
    final = 0
    while data:
        head, blank, rest = data.partition(b"\r\n\r\n")
        if not blank:
            break
        status, fields = _head(head)
        method = methods[final] if final < len(methods) else "GET"
        body = (
            (b"", rest)
            if status < 200 or status in (204, 304) or method == "HEAD"
            else _body(fields, rest, over)
        )
        if body is None:
            break
        final += status >= 200
        answers.append(Answer(status, fields, body[0]))
        data = body[1]
    return answers, data


def _head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    line, *lines = head.split(b"\r\n")
    start = _START.fullmatch(line)
    assert start, f"no status line: {line!r}"
    matches = [_FIELD.fullmatch(field) for field in lines]
    assert all(matches), f"no header field in {lines!r}"
    fields = tuple(
        (match[1].decode().lower(), match[2].decode("latin-1")) for match in matches if match
    )
    names = [name for name, _ in fields]
    for single in ("content-length", "transfer-encoding", "content-type", "connection"):
        assert names.count(single) <= 1, f"{single} came twice: {head!r}"
    assert not {"content-length", "transfer-encoding"} <= set(names), f"both lengths: {head!r}"
    return int(start[1]), fields


def _body(
    fields: tuple[tuple[str, str], ...], rest: bytes, over: bool
) -> tuple[bytes, bytes] | None:
    known = dict(fields)
    if "content-length" in known:
        length = int(known["content-length"])
        return (rest[:length], rest[length:]) if len(rest) >= length else None
    if known.get("transfer-encoding") == "chunked":
        return _chunked(rest)
    return (rest, b"") if over else None


def _chunked(rest: bytes) -> tuple[bytes, bytes] | None:
    pieces: list[bytes] = []
    while True:
        size, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        length = int(size, 16)
        if len(rest) < length + 2:
            return None
        assert rest[length : length + 2] == b"\r\n", "a chunk ends with CRLF"
        pieces.append(rest[:length])
        rest = rest[length + 2 :]
        if length == 0:
            return b"".join(pieces), rest
