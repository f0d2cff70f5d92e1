"""Answers of an OpenAI batch: a line for each request, in the file of answers or that of errors.

    {"id": "batch_req_…", "custom_id": "a",
     "response": {"status_code": 200, "request_id": "…", "body": {…}}, "error": null}

The `body` is what the route of the request answers. Ids follow from the name of the output and the
`custom_id`, so that a job that goes on after a kill writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import orjson

from batcher.codecs import embeddings
from batcher.codecs.content import Buffer
from batcher.codecs.formats import json_lists
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.openai_errors import error_document
from batcher.codecs.row_files.text_writing import row_of
from batcher.core.portions import Answer, Assemble, Place, Portion, State, Written
from batcher.core.request import InferenceResponse
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ClientError


class BatchWriter:
    """Writes the answers of requests.

    Attributes:
        parts: what the parts of the output are called.
        state: what the next writer of this output must know: nothing.
    """

    parts: Sequence[str] = ("",)
    assemble: Assemble | None = None

    def __init__(self, spec: ModelSpec, state: State, name: str) -> None:
        """Write the output called `name`."""
        self.state = state
        self._spec = spec
        self._embedder = embeddings.embedder_of(spec)
        self._name = name

    def write(self, portion: Portion, answers: Sequence[Answer]) -> Written:
        """Return the lines of the requests that have an answer."""
        lines: dict[int, bytes] = {}
        refused: dict[int, BatcherError] = {}
        for rows, response in answers:
            for number, row in enumerate(rows):
                own = response if len(rows) == 1 else row_of(response, number)
                try:
                    body = self._body(own, portion.wishes[row])
                except ClientError as err:
                    refused[row] = err
                else:
                    lines[row] = batch_answer(self._name, portion.places[row], 200, body)
        return Written([b"".join([lines[row] for row in sorted(lines)])], refused)

    def _body(self, response: InferenceResponse, wish: Any) -> Buffer:
        if wish is None:
            return json_lists.encode(response, self._spec)
        assert self._embedder is not None, "the reader has refused all others"
        return embeddings.encode(response, wish, self._embedder)


def batch_answer(name: str, place: Place, status: int, body: Buffer) -> bytes:
    """Return the line of a request in the output `name`."""
    id = blake2b(f"{name}\0{place}".encode(), digest_size=16).hexdigest()
    line = {
        "id": f"batch_req_{id}",
        "custom_id": place if isinstance(place, str) else None,
        "response": {
            "status_code": status,
            "request_id": f"req_{id}",
            "body": orjson.Fragment(bytes(body)),
        },
        "error": None,
    }
    return to_json(line) + b"\n"


def batch_error(name: str, place: Place, error: BatcherError, text: str) -> bytes:
    """Return the line of a request without an answer, of which clients read `text`."""
    where = "" if isinstance(place, str) else f"line {place}: "
    body = to_json(error_document(error, error.http_status, error.code, where + text))
    return batch_answer(name, place, error.http_status, body)
