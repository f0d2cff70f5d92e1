"""What the parts of a ZeroMQ message say.

A message of a client, and each answer, has two kinds of parts:

| part | what it holds |
|---|---|
| the first | an id of 8 bytes that the client chooses, then a map in MessagePack: the header |
| each of the others | the bytes of one tensor, or of a body of HTTP |

There are three kinds of messages, told apart by a member of the header:

| member | what the client wants |
|---|---|
| `model_name` | an inference: members as in the Open Inference Protocol, tensors in the parts |
| `path` | a call of the route that HTTP has on this path, with the body in the parts |
| `cancel` | nothing more of the request with this id |

Refused alternative: the id as a part of its own. Each part costs the server a microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgpack

from batcher.codecs.content import Buffer
from batcher.codecs.formats.references import REF
from batcher.codecs.oip.members import object_of
from batcher.codecs.oip.request import InferHead, array_from_bytes, is_heavy, read_document
from batcher.codecs.oip.response import output_entry
from batcher.codecs.zeromq_calls import NOTICE_ID
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.error_text import brief
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec
from batcher.errors import DecodingError, InvalidInput

MAX_FIELDS: Final = 128
"""Most members of `headers`, as many as HTTP takes header fields."""

MAX_FIELD_CHARS: Final = 8192
"""Most characters of one member of `headers`; the whole header is bounded as well."""

_METHODS: Final = ("GET", "POST")


class InferMessage(NamedTuple):
    """The header of an inference.

    Attributes:
        model: name of the model.
        version: number or label of the version, empty for the newest that is ready.
        document: the members of the Open Inference Protocol.
        headers: header fields as HTTP has them, by their names in lower case.
    """

    model: str
    version: str
    document: dict[str, Any]
    headers: Mapping[bytes, bytes]


class CallMessage(NamedTuple):
    """The header of a call.

    Attributes:
        method: `GET` or `POST`.
        path: path of the route, percent-encoded.
        query: what stands behind the question mark.
        headers: header fields as HTTP has them, by their names in lower case.
    """

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]


class CancelMessage(NamedTuple):
    """The header of a message that takes a request back."""


Message = InferMessage | CallMessage | CancelMessage


def read_header(data: Buffer) -> Message:
    """Return what a header says; `data` is without the id.

    Raises:
        DecodingError: `data` is not a map in MessagePack.
        InvalidInput: a member is missing or has another type than it should.
    """
    document = _document(data)
    if document.get("cancel") is True:
        return CancelMessage()
    fields = _fields(document.pop("headers", None))
    if "path" in document:
        return _call(document, fields)
    model = document.pop("model_name", None)
    if not isinstance(model, str):
        raise InvalidInput(
            f"header: expected a text as model_name, or a path; got {brief(model, 60)}"
        )
    version = document.pop("model_version", "")
    if not isinstance(version, str):
        raise InvalidInput(f"model_version: expected a text; got {brief(version, 60)}")
    return InferMessage(model, version, document, fields)


def _document(data: Buffer) -> dict[str, Any]:
    try:
        document = msgpack.unpackb(data, strict_map_key=True)
    except Exception as err:  # the unpacker raises several kinds, and all mean the same
        raise DecodingError(
            f"header: expected a map in MessagePack; got something else: {brief(str(err))}"
        ) from err
    return object_of(document, "header")


def _call(document: dict[str, Any], fields: Mapping[bytes, bytes]) -> CallMessage:
    target, method = document["path"], document.get("method", "POST")
    if not isinstance(target, str) or not target.startswith("/") or not target.isascii():
        raise InvalidInput(
            f"path: expected a path of HTTP such as /predict; got {brief(target, 60)}"
        )
    if method not in _METHODS:
        raise InvalidInput(f"method: expected GET or POST; got {brief(method, 60)}")
    path, _, query = target.partition("?")
    return CallMessage(method, path, query, fields)


def _fields(value: Any) -> dict[bytes, bytes]:
    if value is None:
        return {}
    fields = object_of(value, "headers")
    if len(fields) > MAX_FIELDS:
        raise InvalidInput(f"headers: expected at most {MAX_FIELDS}; got {len(fields)}")
    return {_field_name(name): _field_value(name, text) for name, text in fields.items()}


def _field_name(name: Any) -> bytes:
    if not isinstance(name, str) or not name.isascii() or name != name.lower():
        raise InvalidInput(f"headers: expected names in lower case; got {brief(name, 60)}")
    return name.encode()


def _field_value(name: str, text: Any) -> bytes:
    is_text = isinstance(text, str) and len(text) <= MAX_FIELD_CHARS
    if not is_text or not text.isascii() or not text.isprintable():
        raise InvalidInput(
            f"headers: {brief(name, 60)}: expected a printable text in ASCII of at most "
            f"{MAX_FIELD_CHARS} characters; got {brief(text, 60)}"
        )
    return str(text).encode()


def infer_head(
    document: dict[str, Any], spec: ModelSpec, limits: DecodingLimits = NO_LIMITS
) -> InferHead:
    """Return the head of an inference for the model `spec`; its tensors are in the parts.

    Raises as `read_document`.
    """
    inputs = document.get("inputs")
    if isinstance(inputs, list):
        if len(inputs) > len(spec.inputs):  # before each is looked at
            raise InvalidInput(f"inputs: expected at most {len(spec.inputs)}; got {len(inputs)}")
        document = {**document, "inputs": list(map(_in_part, inputs))}
    head = read_document(document, spec, limits)
    # All tensors are parts, whatever the client has said of JSON.
    outputs = tuple([output._replace(binary=True) for output in head.outputs])
    return head._replace(outputs=outputs, heavy=is_heavy(outputs))


def _in_part(entry: Any) -> Any:
    """Return an entry of `inputs` that says that its bytes do not stand in the document."""
    if not isinstance(entry, dict):
        return entry
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict) or REF in parameters:
        return entry
    return {**entry, "parameters": {**parameters, "binary_data_size": 0}}


def tensors_in(head: InferHead, parts: Sequence[Buffer]) -> dict[str, Array]:
    """Return the inputs whose bytes are the `parts`, in the order of the header's entries.

    Raises:
        DecodingError: there is not one part for each input, or a part has not the bytes that its
            shape says.
    """
    if len(parts) != len(head.binaries):
        raise DecodingError(
            f"parts: expected {len(head.binaries)} behind the header, one for each input; got "
            f"{len(parts)}"
        )
    found = {}
    for binary, part in zip(head.binaries, parts, strict=True):
        found[binary.tensor.name] = array_from_bytes(binary.tensor, binary.shape, part)
    return found


def tensor_bytes(head: InferHead) -> int:
    """Return how many bytes the parts have; a tensor of BYTES counts as none."""
    tensors = head.binaries
    return sum([each.tensor.datatype.numpy.itemsize * _count(each.shape) for each in tensors])


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def infer_answer(
    response: InferenceResponse, head: InferHead, fields: tuple[tuple[str, str], ...] = ()
) -> list[Buffer]:
    """Return header and parts of the answer with the outputs that `head` asks for.

    The header is without the id. `fields` are header fields as HTTP has them. Any process.
    """
    parts: list[Buffer] = [b""]
    outputs = []
    for wanted in head.outputs:
        entry = output_entry(wanted, response, parts)
        outputs.append((entry["name"], entry["datatype"], tuple(entry["shape"])))
    parts[0] = _answer_header(response.model, response.version, head.id, tuple(outputs), fields)
    return parts


@lru_cache(maxsize=256)  # a model's answers mostly have the same one
def _answer_header(
    model: str,
    version: str,
    request_id: str,
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...],
    fields: tuple[tuple[str, str], ...],
) -> bytes:
    keys = ("name", "datatype", "shape")
    document: dict[str, Any] = {"status": 200, "model_name": model, "model_version": version}
    document["outputs"] = [dict(zip(keys, entry, strict=True)) for entry in outputs]
    if request_id:
        document["id"] = request_id
    if fields:
        document["headers"] = dict(fields)
    return _packed(document)


def error_header(status: int, code: str, text: str, fields: Mapping[str, str]) -> bytes:
    """Return the header of an answer that tells of an error, without the id."""
    document: dict[str, Any] = {"status": status, "code": code, "error": text}
    return _packed({**document, "headers": dict(fields)} if fields else document)


def reply_header(status: int, fields: Mapping[str, str]) -> bytes:
    """Return the header of the answer to a call, whose body is a part; without the id."""
    return _packed({"status": status, "headers": dict(fields)})


CLOSING: Final = {"closing": True}


def notice() -> bytes:
    """Return the first part of the message that says that the server is about to end."""
    return NOTICE_ID + _packed(CLOSING)


def _packed(document: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(document)
    return packed
