"""Responses to values: the outputs of an inference, a JSON object, or the server's failure.

Outputs are views of the response's body: nothing is copied. Whatever another program's bytes make
the reading raise becomes one exception, `MalformedAnswer`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NamedTuple

from batcher.client.errors import InferenceFailed, MalformedAnswer
from batcher.client.tensors import from_tensor
from batcher.codecs.formats.json_text import from_json
from batcher.codecs.oip.members import object_of
from batcher.core.spec import Array
from batcher.errors import BatcherError

_READING_ERRORS = (
    BatcherError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""All that reading another program's bytes may raise; to the caller they are all the same."""

_ZLIB_OR_GZIP = 47
"""For zlib: find out by the first bytes which of the two forms it is."""

_MAX_HEADS, _MAX_HEAD_BYTES = 256, 4096
"""How many JSON heads of answers are kept, and of which size: 1 MiB at most.

The next answer of a model mostly has the same one.
"""


class _Entry(NamedTuple):
    """An output as the head of an answer describes it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int


class HttpResponse(NamedTuple):
    """A whole response.

    Attributes:
        status: HTTP status.
        headers: header fields, found by their names in lower case.
        body: bytes of the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class InferResult:
    """What a model said.

    Attributes:
        model: name of the model.
        version: version of the model that answered.
        id: the caller's name for the request, empty without.
        outputs: output name to array; the first axis is the row. The arrays are read-only views of
            the response's body: copy an array to write into it. BYTES are object arrays of
            `bytes`; BF16 are arrays of uint16, the bits of each number.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]


def unpacked(response: HttpResponse) -> HttpResponse:
    """Return `response` with its body unpacked, should a proxy have packed it unasked.

    Raises:
        MalformedAnswer: the body is not what its content coding says.
    """
    coding = response.headers.get("content-encoding", "")
    if coding not in ("gzip", "x-gzip", "deflate"):
        return response
    try:
        return response._replace(body=zlib.decompress(response.body, _ZLIB_OR_GZIP))
    except zlib.error as err:
        raise MalformedAnswer(f"expected a body of coding {coding}; got another: {err}") from err


def read_success(response: HttpResponse) -> None:
    """Let a response with status 200 pass.

    Raises:
        MalformedAnswer: the status is another one below 400, since `failure_of` has dealt with
            errors before.
    """
    if response.status != 200:
        raise MalformedAnswer(f"expected status 200; got {response.status}")


def read_document(response: HttpResponse) -> dict[str, Any]:
    """Return the JSON object that is the body. Raises MalformedAnswer."""
    read_success(response)
    try:
        return object_of(from_json(response.body), "answer")
    except BatcherError as err:
        raise MalformedAnswer(f"expected a JSON object; got {response.body!r:.80}") from err


def read_result(response: HttpResponse) -> InferResult:
    """Return the result of an inference. Raises MalformedAnswer."""
    read_success(response)
    try:
        return _result(response)
    except _READING_ERRORS as err:
        raise MalformedAnswer(
            f"expected an answer with binary tensors as the protocol has it; got another: {err}"
        ) from err


def failure_of(response: HttpResponse, unix_time: float) -> InferenceFailed | None:
    """Return the failure that a response tells of; None if its status is below 400.

    Args:
        response: the whole response.
        unix_time: seconds since 1970, for a `Retry-After` that is a date.
    """
    if response.status < 400:
        return None
    retry_after = seconds_of(response.headers.get("retry-after"), unix_time)
    return InferenceFailed(response.status, _message(response.body), retry_after)


def seconds_of(retry_after: str | None, unix_time: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, counted from `unix_time`.

    None where the header is absent, or neither a number nor a date.
    """
    text = (retry_after or "").strip()
    # nine digits are 31 years; hundreds of digits would be infinity as a float
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        return max(0.0, moment - unix_time)
    except (ArithmeticError, TypeError, ValueError):
        return None


def _message(body: bytes) -> str:
    try:
        return str(from_json(body)["error"])
    except (BatcherError, LookupError, TypeError):
        # a proxy's page, say
        return bytes(body[:200]).decode("utf-8", "replace").strip() or "the server gave no reason"


def _result(response: HttpResponse) -> InferResult:
    body = memoryview(response.body)
    length = int(response.headers.get("inference-header-content-length") or len(body))
    if not 0 <= length <= len(body):
        raise ValueError(
            f"expected JSON of at most {len(body)} bytes, the whole body; got {length}"
        )
    read = _read_head if length <= _MAX_HEAD_BYTES else _read_head.__wrapped__
    model, version, request_id, entries = read(bytes(body[:length]))
    return InferResult(model, version, request_id, _outputs(entries, body, length))


@lru_cache(maxsize=_MAX_HEADS)
def _read_head(head: bytes) -> tuple[str, str, str, list[_Entry]]:
    """Return model, version, id of the request, and the entries of the outputs."""
    document = from_json(head)
    entries = [
        _Entry(
            entry["name"],
            entry["datatype"],
            tuple(entry["shape"]),
            entry["parameters"]["binary_data_size"],
        )
        for entry in document["outputs"]
    ]
    return (
        document["model_name"],
        document.get("model_version", ""),
        document.get("id", ""),
        entries,
    )


def _outputs(entries: list[_Entry], body: memoryview, start: int) -> dict[str, Array]:
    """Return the tensors that `entries` describe; the first one begins at `start` of `body`."""
    outputs: dict[str, Array] = {}
    for name, datatype, shape, size in entries:
        stop = start + size
        if not start <= stop <= len(body):
            raise ValueError(
                f"expected tensors within {len(body)} bytes; got one from {start} to {stop}"
            )
        outputs[name] = from_tensor(name, datatype, shape, body[start:stop])
        start = stop
    if start < len(body):
        raise ValueError(f"expected {start} bytes; got {len(body)}")
    return outputs
