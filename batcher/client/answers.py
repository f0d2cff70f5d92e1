"""Answers to values: the outputs of an inference as views of the body, or the failure that the server tells of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from batcher.client.errors import InferenceFailed, MalformedAnswer
from batcher.client.tensors import from_tensor
from batcher.codecs.formats.json_lists import from_json
from batcher.codecs.oip.members import object_of
from batcher.core.spec import Array
from batcher.errors import BatcherError

_NOT_AS_EXPECTED = (
    BatcherError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What reading bytes that another program wrote may raise, all of it the same to the caller."""


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: the HTTP status.
        headers: header fields, found by their names in lower case.
        body: the whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class InferResult:
    """What a model said.

    Attributes:
        model: its name.
        version: the version that answered.
        id: the caller's name for the request, empty without.
        outputs: name to array, first axis the row. The arrays are read-only views of the answer's
            body: copy one to write into it. BYTES are object arrays of `bytes`, BF16 are uint16,
            its bits.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]


def read_success(answer: Answer) -> None:
    """Let an answer with status 200 pass.

    Raises:
        MalformedAnswer: it has another one. Errors were told apart before.
    """
    if answer.status != 200:
        raise MalformedAnswer(f"expected status 200; got {answer.status}")


def read_document(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that is the body. Raises MalformedAnswer."""
    read_success(answer)
    try:
        return object_of(from_json(answer.body), "answer")
    except BatcherError as err:
        raise MalformedAnswer(f"expected a JSON object; got {answer.body!r:.80}") from err


def read_result(answer: Answer) -> InferResult:
    """Return what an inference answered. Raises MalformedAnswer."""
    read_success(answer)
    try:
        return _result(answer)
    except _NOT_AS_EXPECTED as err:
        raise MalformedAnswer(
            f"expected an answer with binary tensors as the protocol has it; got another: {err}"
        ) from err


def failure_of(answer: Answer, wall: float) -> InferenceFailed | None:
    """Return the failure that an answer tells of, None if it has status below 400.

    Args:
        answer: what came.
        wall: the time, in seconds since 1970, for a `Retry-After` that is a date.
    """
    if answer.status < 400:
        return None
    return InferenceFailed(
        answer.status, _message(answer.body), seconds_of(answer.headers.get("retry-after"), wall)
    )


def seconds_of(retry_after: str | None, wall: float) -> float | None:
    """Return how many seconds a `Retry-After` asks for.

    None where it is absent, or neither a number nor a date.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall)
    except (ArithmeticError, TypeError, ValueError):
        return None


def _message(body: bytes) -> str:
    try:
        return str(from_json(body)["error"])
    except (BatcherError, LookupError, TypeError):
        return bytes(body[:200]).decode("utf-8", "replace").strip() or "the server gave no reason"


def _result(answer: Answer) -> InferResult:
    body = memoryview(answer.body)
    length = int(answer.headers.get("inference-header-content-length") or len(body))
    if not 0 <= length <= len(body):
        raise ValueError(
            f"expected JSON of at most {len(body)} bytes, the whole body; got {length}"
        )
    document = from_json(body[:length])
    outputs: dict[str, Array] = {}
    start = length
    for entry in document["outputs"]:
        stop = start + entry["parameters"]["binary_data_size"]
        if not start <= stop <= len(body):
            raise ValueError(
                f"expected tensors within {len(body)} bytes; got one from {start} to {stop}"
            )
        name = entry["name"]
        outputs[name] = from_tensor(
            name, entry["datatype"], tuple(entry["shape"]), body[start:stop]
        )
        start = stop
    if start < len(body):
        raise ValueError(f"expected {start} bytes; got {len(body)}")
    return InferResult(
        document["model_name"], document.get("model_version", ""), document.get("id", ""), outputs
    )
