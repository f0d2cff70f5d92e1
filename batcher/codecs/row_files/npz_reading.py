"""Rows of a file of numpy arrays (`.npz`): one array for each input, whose first axis is the row.

The arrays are read a portion at a time, each as a stream of its own, so a file may be larger than
the memory. Nothing in such a file can run code: arrays of objects, which are pickles, are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import IO, Any, BinaryIO, NamedTuple
from zipfile import BadZipFile, ZipFile
from zlib import error as zlib_error

import numpy as np
from numpy.lib import format as npy_format

from batcher.codecs.row_files.grouping import Inputs
from batcher.codecs.row_files.numbered_rows import NumberedRowsReader
from batcher.core.spec import Array, ModelSpec, check_inputs, wrong_names
from batcher.errors import DecodingError, InvalidInput

SUFFIX = ".npy"
MAX_HEAD_BYTES = 1 << 20
MAX_ROW_BYTES = 64 << 20
"""Largest row of an array: as much as a request may have by default."""

MAX_PORTION_BYTES = 256 << 20
"""Bytes of a portion of many rows: portions wait in memory."""


class _Stored(NamedTuple):
    """An array of the file.

    Attributes:
        name: of the input.
        shape: of the whole array.
        dtype: of its elements.
        start: byte of its stream at which the elements begin.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * self.dtype.itemsize


class NpzReader(NumberedRowsReader):
    """Reads the rows of arrays."""

    def __init__(self, file: BinaryIO, spec: ModelSpec) -> None:
        """Read `file`. Raises ClientError: it does not hold the inputs of the model."""
        super().__init__(spec)
        try:
            self._zip = ZipFile(file)
            self._arrays = _arrays(self._zip, spec)
            self._rows = _rows(self._arrays, spec)
        except (BadZipFile, EOFError, zlib_error, ValueError, NotImplementedError) as err:
            raise DecodingError(f"expected a file of numpy.savez: {err}") from err
        row_bytes = sum(found.row_bytes for found in self._arrays.values())
        self._most = max(MAX_PORTION_BYTES // row_bytes, 1)
        self._streams: dict[str, IO[bytes]] = {}

    def _next_rows(self, rows: int) -> Callable[[int, int], Inputs]:
        inputs = {name: self._next(found, rows) for name, found in self._arrays.items()}

        def decode(start: int, stop: int) -> Inputs:
            return {name: array[start:stop] for name, array in inputs.items()}

        return decode

    def _go_to(self, row: int) -> None:
        for name, found in self._arrays.items():
            stream = self._zip.open(name + SUFFIX)
            stream.seek(found.start + row * found.row_bytes)
            self._streams[name] = stream

    def _next(self, found: _Stored, rows: int) -> Array:
        nbytes = rows * found.row_bytes
        try:
            content = self._streams[found.name].read(nbytes)
        except (BadZipFile, EOFError, zlib_error) as err:
            raise DecodingError(f"array {found.name!r}: the file is damaged: {err}") from err
        if len(content) != nbytes:
            raise DecodingError(f"array {found.name!r}: the file ends before its last row")
        array = np.frombuffer(content, found.dtype).reshape(rows, *found.shape[1:])
        return _as_texts(array) if found.dtype.kind in "SU" else _in_order(array)


def _arrays(file: ZipFile, spec: ModelSpec) -> dict[str, _Stored]:
    """Return the arrays in `file` by name. Raises DecodingError, InvalidInput."""
    found = {}
    if len(file.namelist()) > len(spec.inputs):
        names = file.namelist()[: len(spec.inputs) + 1]
        raise wrong_names(spec, dict.fromkeys(name.removesuffix(SUFFIX) for name in names))
    for entry in file.namelist():
        with file.open(entry) as stream:
            name = entry.removesuffix(SUFFIX)
            found[name] = _stored(name, stream)
    return found


def _stored(name: str, stream: IO[bytes]) -> _Stored:
    version = npy_format.read_magic(stream)
    read = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise DecodingError(f"array {name!r}: expected version 1.0 or 2.0 of .npy; got {version}")
    if version == (2, 0):
        _check_head(name, stream)
    shape, is_by_columns, dtype = read(stream)
    if dtype.hasobject or dtype.names:
        raise DecodingError(
            f"array {name!r}: expected numbers or texts; got Python objects, which are not read "
            "since they can run code: texts are saved by `array.astype('S')`"
        )
    if is_by_columns and len(shape) > 1:
        raise DecodingError(
            f"array {name!r}: expected rows one after the other; got columns (Fortran's order): "
            "save `numpy.ascontiguousarray(array)`"
        )
    if not shape or not prod(shape[1:]) * dtype.itemsize:
        raise DecodingError(f"array {name!r}: expected rows of at least one value; got {shape}")
    return _checked_size(_Stored(name, shape, dtype, stream.tell()))


def _checked_size(found: _Stored) -> _Stored:
    """Return `found`. Raises DecodingError: no memory may be asked for such rows."""
    if min(found.shape) < 0 or found.row_bytes > MAX_ROW_BYTES:
        raise DecodingError(
            f"array {found.name!r}: expected rows of at most {MAX_ROW_BYTES} bytes; got shape "
            f"{found.shape} of {found.dtype}"
        )
    return found


def _check_head(name: str, stream: IO[bytes]) -> None:
    """Check that numpy reads no head of gigabytes, of which it would take 10,000 characters."""
    start = stream.tell()
    length = int.from_bytes(stream.read(4), "little")
    if length > MAX_HEAD_BYTES:
        raise DecodingError(f"array {name!r}: expected a head of few bytes; got {length}")
    stream.seek(start)


def _rows(arrays: Mapping[str, _Stored], spec: ModelSpec) -> int:
    """Return how many rows all `arrays` have. Raises InvalidInput."""
    known = {tensor.name for tensor in spec.inputs}
    required = {tensor.name for tensor in spec.required}
    if not required <= arrays.keys() <= known:
        raise wrong_names(spec, arrays)
    lengths = {name: found.shape[0] for name, found in arrays.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name!r} {rows}" for name, rows in lengths.items())
        raise InvalidInput(f"expected arrays of as many rows; got {each}")
    # One row tells whether dtypes and shapes are those of the model, before anything runs.
    check_inputs(spec, {name: _blank_row(found) for name, found in arrays.items()})
    return next(iter(lengths.values()))


def _blank_row(found: _Stored) -> Array:
    blank = np.zeros((1, *found.shape[1:]), found.dtype)
    return _as_texts(blank) if found.dtype.kind in "SU" else _in_order(blank)


def _in_order(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _as_texts(array: Array) -> Array:
    texts = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    return texts.astype(object)
