"""Typed contents of an input become the bytes that `raw_input_contents` would have held.

A client may send the values of an input one by one, in a field for their type, or as bytes. Typed
contents are made bytes first, so one code reads both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from batcher.codecs.oip.elements import to_elements
from batcher.codecs.oip.request import BinaryInput, array_from_bytes
from batcher.core.element_sizes import sized
from batcher.core.error_text import brief
from batcher.core.spec import DATATYPES, Array
from batcher.errors import InvalidInput
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.wire import count_values, malformed

MAX_TYPED_VALUES = 1 << 20
"""Most values in the typed contents of an input: each costs a step in Python."""


class TypedInput(NamedTuple):
    """An input whose typed contents are not read yet.

    Attributes:
        name: name of the input.
        datatype: its datatype, as the client wrote it.
        contents: a message InferTensorContents.
    """

    name: str
    datatype: str
    contents: memoryview

    def entry(self) -> pb.ModelInferRequest.InferInputTensor:
        """Return the input as a message. Raises DecodingError. Any thread."""
        entry = pb.ModelInferRequest.InferInputTensor(name=self.name, datatype=self.datatype)
        try:
            entry.contents.ParseFromString(bytes(self.contents))
        except DecodeError as err:
            raise malformed() from err
        return entry


_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field for values of each datatype; values of the other datatypes travel as bytes alone."""

_WIDE_DTYPES = {"int_contents": "<i4", "uint_contents": "<u4"}
"""The dtype of the fields that narrower datatypes share."""


def typed_inputs(
    inputs: tuple[TypedInput, ...], binaries: tuple[BinaryInput, ...]
) -> Mapping[str, Array]:
    """Return the arrays of `inputs`, each as the one of `binaries` at its place says.

    This is for large contents, in another process. Raises as `typed_bytes` does, or DecodingError.
    """
    arrays = {}
    for typed, binary in zip(inputs, binaries, strict=True):
        # Before the message is made: 64 MiB hold 32 million empty texts.
        if count_values(typed.contents, MAX_TYPED_VALUES) > MAX_TYPED_VALUES:
            raise InvalidInput(
                f"input {brief(typed.name)}: expected raw_input_contents for more than "
                f"{MAX_TYPED_VALUES} values; got contents"
            )
        data = typed_bytes(typed.entry())
        arrays[binary.tensor.name] = array_from_bytes(binary.tensor, binary.shape, data)
    return sized(arrays)


def typed_bytes(entry: pb.ModelInferRequest.InferInputTensor) -> bytes:
    """Return the typed contents of `entry` as bytes, row-major and little-endian.

    Raises:
        InvalidInput: the datatype has no typed contents, or the values stand in a field of another
            datatype, are more than MAX_TYPED_VALUES, or are out of the datatype's range.
    """
    where = f"input {brief(entry.name)}"
    field = _field_of(entry, where)
    values = getattr(entry.contents, field)
    if len(values) > MAX_TYPED_VALUES:
        raise InvalidInput(
            f"{where}: expected raw_input_contents for more than {MAX_TYPED_VALUES} values; got "
            f"{len(values)} in {field}"
        )
    if entry.datatype == "BYTES":
        return _elements(values)
    return _numbers(values, entry.datatype, field, where)


def _field_of(entry: pb.ModelInferRequest.InferInputTensor, where: str) -> str:
    """Return the field that holds the values of `entry`, which must be the only one in use."""
    field = _FIELDS.get(entry.datatype)
    if field is None:
        datatype = entry.datatype or "no datatype"
        raise InvalidInput(
            f"{where}: expected raw_input_contents for {brief(datatype)}; got contents"
        )
    others = [found.name for found, _ in entry.contents.ListFields() if found.name != field]
    if others:
        raise InvalidInput(
            f"{where}: expected {field} for {entry.datatype}; got {', '.join(others)}"
        )
    return field


def _elements(values: Any) -> bytes:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return to_elements(array)


def _numbers(values: Any, datatype: str, field: str, where: str) -> bytes:
    dtype = DATATYPES[datatype].numpy
    array = np.fromiter(values, _WIDE_DTYPES.get(field, dtype), len(values))
    narrow = array.astype(dtype)
    if array.dtype != dtype and (narrow != array).any():
        limits, wrong = np.iinfo(dtype), array[narrow != array][0]
        raise InvalidInput(
            f"{where}: expected {limits.min} to {limits.max} for {datatype}; got {wrong}"
        )
    return narrow.tobytes()
