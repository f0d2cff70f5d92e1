"""Typed contents of an input as the bytes that `raw_input_contents` would have held."""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.codecs.oip.elements import to_elements
from batcher.core.spec import DATATYPES
from batcher.errors import InvalidInput
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb

MOST_VALUES = 1 << 20
"""Most values in typed contents, which are looked at one by one."""

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
"""Where a datatype's typed contents stand; the others travel as bytes alone."""

_WIDE = {"int_contents": "<i4", "uint_contents": "<u4"}
"""What contents of narrower datatypes come as."""


def typed_bytes(entry: pb.ModelInferRequest.InferInputTensor) -> bytes:
    """Return the typed contents of `entry`, row-major and little-endian.

    Raises:
        InvalidInput: its datatype has none, they stand in another field, are too many, or out of
            the datatype's range.
    """
    where, field = f"input {entry.name!r:.60}", _FIELDS.get(entry.datatype)
    if field is None:
        kind = entry.datatype or "no datatype"
        raise InvalidInput(f"{where}: expected raw_input_contents for {kind!r:.60}; got contents")
    others = [found.name for found, _ in entry.contents.ListFields() if found.name != field]
    if others:
        raise InvalidInput(
            f"{where}: expected {field} for {entry.datatype}; got {', '.join(others)}"
        )
    values = getattr(entry.contents, field)
    if len(values) > MOST_VALUES:
        raise InvalidInput(
            f"{where}: expected raw_input_contents for more than {MOST_VALUES} values; got "
            f"{len(values)} in {field}"
        )
    return (
        _elements(values)
        if entry.datatype == "BYTES"
        else _numbers(values, entry.datatype, field, where)
    )


def _elements(values: Any) -> bytes:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return to_elements(array)


def _numbers(values: Any, name: str, field: str, where: str) -> bytes:
    dtype = DATATYPES[name].numpy
    array = np.fromiter(values, _WIDE.get(field, dtype), len(values))
    narrow = array.astype(dtype)
    if array.dtype != dtype and (narrow != array).any():
        limits, wrong = np.iinfo(dtype), array[narrow != array][0]
        raise InvalidInput(
            f"{where}: expected {limits.min} to {limits.max} for {name}; got {wrong}"
        )
    return narrow.tobytes()
