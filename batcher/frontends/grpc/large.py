"""Large request messages, which are cut up before the library of the protocol reads them.

The library would copy the tensors twice on the loop, and make an object for each of millions of
empty fields: 64 MiB of them become 3 GB. So the fields of a large message are walked here, by their
tags and lengths alone:

| part of the message | becomes |
|---|---|
| `raw_input_contents` | a view of the message, which is not copied |
| `contents` of an input | a view, which is read in the process for heavy codecs if it is large |
| `model_version` | the same version without what it has too many of leading zeros |
| all else: names, shapes, parameters | a small message, which the library reads |

The number of fields and the bytes of the small message are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from batcher.errors import DecodingError, InvalidInput
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import parse_message
from batcher.frontends.grpc.wire import BYTES, Field, tag, walk

LARGE_BYTES = 1 << 16
"""Bytes from which on a message is cut up; below about 128 KiB, the library would be as fast.

Measured: 1 MiB takes 60 us instead of 270, 64 MiB 20 us instead of 296 ms.
"""

MAX_FIELDS = 1 << 13
"""Most fields of a message, those of its inputs included: each costs the loop half a microsecond.

A model with 1,000 inputs needs 6,000.
"""

MAX_HEAD_BYTES = 1 << 16
"""Most bytes of a message besides its tensors. A model with 1,000 inputs needs 40,000."""

_ZEROS = b"0" * 4096
"""A page of zeros of a version."""

_VERSION = pb.ModelInferRequest.MODEL_VERSION_FIELD_NUMBER
_INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER
_RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = pb.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER


class LargeTensors(NamedTuple):
    """The tensors that were cut out of a message.

    Attributes:
        raw: `raw_input_contents`.
        contents: `contents` of each input, empty where there are none.
    """

    raw: tuple[memoryview, ...]
    contents: tuple[memoryview, ...]


class InferMessage(NamedTuple):
    """A request for inference.

    Attributes:
        message: the message, without its tensors where it was large.
        tensors: what was cut out of the message; None where it was read whole.
    """

    message: pb.ModelInferRequest
    tensors: LargeTensors | None = None

    @property
    def model_name(self) -> str:
        """The name of the model that the request is for."""
        return self.message.model_name


def read_infer_message(data: bytes) -> InferMessage:
    """Return the request in `data`. Raises DecodingError or InvalidInput. Reactor thread."""
    if len(data) < LARGE_BYTES:
        return InferMessage(parse_message(pb.ModelInferRequest, data))
    return _Cut(memoryview(data)).message()


class _Cut:
    """A message that is being cut up."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._fields = 0
        self._head = bytearray()

    def message(self) -> InferMessage:
        """Return the parts. Raises DecodingError or InvalidInput."""
        data = self._data
        raw, contents = [], []
        for field in self._walk(0, len(data)):
            if field.number == _RAW and field.kind == BYTES:
                raw.append(data[field.value : field.end])
            elif field.number == _INPUTS and field.kind == BYTES:
                contents.append(self._input(field))
            elif field.number == _VERSION and field.kind == BYTES:
                version = _without_zeros(data[field.value : field.end])
                self._keep(tag(_VERSION, len(version)))
                self._keep(version)
            else:
                self._keep(data[field.start : field.end])
        message = parse_message(pb.ModelInferRequest, bytes(self._head))
        return InferMessage(message, LargeTensors(tuple(raw), tuple(contents)))

    def _input(self, field: Field) -> memoryview:
        """Keep an input without its contents, and return the contents."""
        data = self._data
        contents = data[:0]
        kept = []
        for inner in self._walk(field.value, field.end):
            if inner.number != _CONTENTS or inner.kind != BYTES:
                kept.append(data[inner.start : inner.end])
            elif contents:
                raise DecodingError("inputs: expected contents once in each input; got them again")
            else:
                contents = data[inner.value : inner.end]
        self._keep(tag(_INPUTS, sum(map(len, kept))))
        for piece in kept:
            self._keep(piece)
        return contents

    def _keep(self, piece: bytes | memoryview) -> None:
        if len(self._head) + len(piece) > MAX_HEAD_BYTES:
            raise InvalidInput(
                f"expected at most {MAX_HEAD_BYTES} bytes besides the tensors; got more"
            )
        self._head += piece

    def _walk(self, start: int, end: int) -> Iterator[Field]:
        for field in walk(self._data, start, end):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise InvalidInput(f"expected at most {MAX_FIELDS} fields in a request; got more")
            yield field


def _without_zeros(version: memoryview) -> memoryview:
    """Return `version` with fewer than a page of leading zeros, which never mean anything.

    Pages are compared one by one: 8 MiB of zeros take the loop a millisecond.
    """
    start = 0
    while bytes(version[start : start + len(_ZEROS)]) == _ZEROS:  # views compare slowly
        start += len(_ZEROS)
    return version[start:]
