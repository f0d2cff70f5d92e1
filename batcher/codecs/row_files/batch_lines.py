"""Lines of OpenAI's batches: each is a request, whose answer is found by its `custom_id`.

    {"custom_id": "a", "method": "POST", "url": "/v1/embeddings",
     "body": {"model": "minilm", "input": "a text"}}

The `url` is `/v1/embeddings`, or `/models/NAME/predict` for any model; the `body` is that of the
route. All lines of a batch name one route and one model. So a batch is checked as a whole before
anything of it runs, and each fault says which line has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

from batcher.codecs.formats.json_text import with_json
from batcher.codecs.row_files.lines import BEGIN, LineReader, TextLine
from batcher.core.error_text import brief
from batcher.core.portions import BatchCheck, LineFault
from batcher.errors import DecodingError

EMBEDDINGS = "/v1/embeddings"
"""The route of embeddings, whose model stands in the body."""

MAX_ID_BYTES = 512
"""Longest `custom_id`."""

MOST_FAULTS = 100
"""Faults of a batch that are told; behind them nobody reads on."""

_PREDICT = re.compile(r"/models/([^/]{1,1024})/predict")
_MEMBERS = ("custom_id", "method", "url", "body")


class BatchLine(NamedTuple):
    """A request of a batch.

    Attributes:
        custom_id: the client's name for it.
        url: the route.
        model: the model that is to answer.
        body: what is asked of it.
    """

    custom_id: str
    url: str
    model: str
    body: dict[str, Any]


class WrongLine(NamedTuple):
    """Why a line is no request.

    Attributes:
        code: a word for programs.
        param: the member at fault; empty where it is the line.
        text: what was expected and what came.
    """

    code: str
    param: str
    text: str


def batch_line(document: Any) -> BatchLine | WrongLine:
    """Return the request in a line's document, or why it is none."""
    if not isinstance(document, dict):
        return WrongLine("invalid_json_line", "", f"expected an object; got {brief(document, 60)}")
    for name in _MEMBERS:
        if name not in document:
            return WrongLine("missing_required_parameter", name, f"expected {name}; got none")
    custom_id, method, url, body = (document[name] for name in _MEMBERS)
    if not isinstance(custom_id, str) or not 0 < len(custom_id.encode()) <= MAX_ID_BYTES:
        expected = f"custom_id: expected a text of 1 to {MAX_ID_BYTES} bytes"
        return WrongLine("invalid_custom_id", "custom_id", f"{expected}; got {brief(custom_id)}")
    if method != "POST":
        return WrongLine("invalid_method", "method", f"method: expected POST; got {brief(method)}")
    if not isinstance(body, dict):
        expected = "body: expected an object"
        return WrongLine("invalid_body", "body", f"{expected}; got {brief(body, 60)}")
    model = body.get("model") if url == EMBEDDINGS else model_of(url)
    if not isinstance(model, str) or not model:
        if url == EMBEDDINGS:
            expected = f"body.model: expected the name of a model; got {brief(model, 60)}"
            return WrongLine("invalid_model", "body.model", expected)
        return WrongLine("invalid_url", "url", f"url: {expected_route(url)}")
    return BatchLine(custom_id, url, model, body)


def model_of(url: object) -> str:
    """Return the model that a route names; empty where it is none of a batch, or of embeddings."""
    found = _PREDICT.fullmatch(url) if isinstance(url, str) else None
    return unquote(found[1]) if found else ""


def expected_route(url: object) -> str:
    """Return the text that says which routes a batch may name."""
    return f"expected {EMBEDDINGS} or /models/NAME/predict; got {brief(url, 100)}"


def check_batch(
    file: BinaryIO, endpoint: str, most: int, stops: Callable[[], bool]
) -> BatchCheck | None:
    """Return what is in a batch whose lines name the route `endpoint`, and have at most `most`.

    None: `stops` said so. Memory is bounded by `most`, whatever the size of the file.
    """
    check = _Check(endpoint)
    lines = LineReader(file)
    lines.go_to(BEGIN)
    while (line := lines.next()) is not None and len(check.faults) < MOST_FAULTS:
        if stops():
            return None
        check.requests += 1
        if check.requests > most:
            check.add(None, WrongLine("too_many_requests", "", f"expected at most {most} requests"))
            break
        check.look(line)
    if not check.requests:
        check.add(None, WrongLine("empty_file", "", "expected at least one request; got none"))
    return BatchCheck(check.model, check.requests, check.faults)


class _Check:
    """What was found in a batch so far.

    Attributes:
        model: the model of the first request.
        requests: lines, right and wrong.
        faults: what is wrong.
    """

    def __init__(self, endpoint: str) -> None:
        self.model = ""
        self.requests = 0
        self.faults: list[LineFault] = []
        self._endpoint = endpoint
        # Digests: ids of the full length would take some ten times the memory.
        self._seen: set[bytes] = set()

    def add(self, line: int | None, wrong: WrongLine) -> None:
        self.faults.append(LineFault(wrong.code, line, wrong.text, wrong.param or None))

    def look(self, line: TextLine) -> None:
        """Check a line."""
        if line.error is not None:
            self.add(line.number, WrongLine("invalid_json_line", "", str(line.error)))
            return
        try:
            found = with_json(line.text, batch_line)
        except DecodingError as err:
            found = WrongLine("invalid_json_line", "", str(err))
        wrong = found if isinstance(found, WrongLine) else self._wrong(found)
        if wrong is not None:
            self.add(line.number, wrong)

    def _wrong(self, found: BatchLine) -> WrongLine | None:
        """Return why a request does not belong to the batch."""
        digest = blake2b(found.custom_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            text = f"custom_id: expected another one in each line; got {brief(found.custom_id)}"
            return WrongLine("duplicate_custom_id", "custom_id", text + " again")
        self._seen.add(digest)
        if found.url != self._endpoint:
            text = f"url: expected the endpoint of the batch, {self._endpoint}"
            return WrongLine("mismatched_endpoint", "url", f"{text}; got {brief(found.url, 100)}")
        self.model = self.model or found.model
        if found.model != self.model:
            text = f"body.model: expected one model in a batch, {self.model}"
            return WrongLine("mismatched_model", "body.model", f"{text}; got {brief(found.model)}")
        return None
