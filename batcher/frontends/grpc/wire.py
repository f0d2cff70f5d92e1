"""Messages of protobuf as they are packed: fields with tags and lengths. No message is made here.

Packing of the format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from batcher.errors import DecodingError
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb

_VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: number of the field in the definition of the message.
        kind: wire type, which says how the value is packed.
        start: where the field's tag begins.
        value: where the value begins, behind tag and length.
        end: where the next field begins.
    """

    number: int
    kind: int
    start: int
    value: int
    end: int


def walk(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message that lies in `data` from `start` to `end`. Any thread.

    Raises DecodingError: what lies there is no message.
    """
    at = start
    while at < end:
        tag, value = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:
            length, value = _varint(data, value, end)
            after = value + length
        elif kind == _VARINT:
            _, after = _varint(data, value, end)
        elif kind in _FIXED_SIZES:
            after = value + _FIXED_SIZES[kind]
        else:
            raise malformed()
        if after > end or not number:
            raise malformed()
        yield Field(number, kind, at, value, after)
        at = after


def count_values(contents: memoryview, most: int) -> int:
    """Return how many values an input's `contents` hold, and no more than `most` + 1. Any thread.

    Raises DecodingError.
    """
    found = 0
    for field in walk(contents, 0, len(contents)):
        number = _COUNTED.get(field.number)
        if number is None or field.kind != BYTES:
            found += 1
        elif number:
            found += (field.end - field.value) // number
        else:
            packed = np.frombuffer(contents[field.value : field.end], np.uint8)
            found += int(np.count_nonzero(packed < 0x80))  # the last byte of each varint
        if found > most:
            return most + 1
    return found


_Contents = pb.InferTensorContents
_COUNTED = {
    _Contents.BOOL_CONTENTS_FIELD_NUMBER: 0,
    _Contents.INT_CONTENTS_FIELD_NUMBER: 0,
    _Contents.INT64_CONTENTS_FIELD_NUMBER: 0,
    _Contents.UINT_CONTENTS_FIELD_NUMBER: 0,
    _Contents.UINT64_CONTENTS_FIELD_NUMBER: 0,
    _Contents.FP32_CONTENTS_FIELD_NUMBER: 4,
    _Contents.FP64_CONTENTS_FIELD_NUMBER: 8,
}
"""Bytes of a packed value of each field, 0 where they differ. Other fields are not packed."""


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends. Raises DecodingError."""
    value = shift = 0
    for place in range(at, min(at + _MAX_VARINT_BYTES, end)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise malformed()


def tag(number: int, length: int) -> bytes:
    """Return tag and length of a field of bytes."""
    packed = bytearray()
    for value in (number << 3 | BYTES, length):
        while value >= 0x80:
            packed.append(value & 0x7F | 0x80)
            value >>= 7
        packed.append(value)
    return bytes(packed)


def malformed() -> DecodingError:
    """Return the error of a request that is no message."""
    return DecodingError("expected a ModelInferRequest; got something else")
