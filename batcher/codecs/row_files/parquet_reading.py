"""Rows of a Parquet file (extra `parquet`): one column for each input.

    column                          input
    numbers, booleans               the same datatype, rows without axes or of one element
    strings, binary                 BYTES, likewise
    lists of the above, nested      rows with an axis for each level of lists

The file is read a record batch at a time. Rows are refused by themselves: one with a null where the
input has no value for what is missing, and one whose list has another length. Datatypes are
not converted, but for a null, which is NaN where the input says `missing: nan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from batcher.codecs.row_files.grouping import Inputs
from batcher.codecs.row_files.numbered_rows import NumberedRowsReader
from batcher.core.installing import how_to_install
from batcher.core.spec import Array, ModelSpec, TensorSpec, missing_advice, wrong_names
from batcher.errors import DecodingError, InvalidInput

READ_ROWS = 1024
"""Rows that are decoded at once: a part of a row group, so that large groups are never held."""


READ_BYTES = 16 << 20
"""Bytes that are decoded at once, whatever the number of rows: rows may be pictures."""


def pyarrow() -> Any:
    """Return the library. Raises InvalidInput: it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as err:
        raise InvalidInput(
            f"Parquet: expected the extra parquet; got none: {err}. It comes with "
            f"{how_to_install('parquet')}"
        ) from err
    # Its own threads would compete with the model for the cores.
    pyarrow.set_cpu_count(1)
    return pyarrow


class ParquetReader(NumberedRowsReader):
    """Reads the rows of columns."""

    def __init__(self, file: BinaryIO, spec: ModelSpec) -> None:
        """Read `file`. Raises ClientError: it does not hold the inputs of the model."""
        super().__init__(spec)
        self._arrow = pyarrow()
        try:
            self._file = self._arrow.parquet.ParquetFile(file)
        except (self._arrow.ArrowException, OSError) as err:
            raise DecodingError(f"expected a Parquet file: {err}") from err
        names = self._file.schema_arrow.names
        self._tensors = [tensor for tensor in spec.inputs if tensor.name in names]
        if not {tensor.name for tensor in spec.required} <= set(names):
            raise wrong_names(spec, dict.fromkeys(names))
        for tensor in self._tensors:
            _check_type(self._file.schema_arrow.field(tensor.name).type, tensor, self._arrow)
        self._rows = self._most = self._file.metadata.num_rows
        self._batches: Iterator[Any] = iter(())
        self._held: Any = None

    def _next_rows(self, rows: int) -> Callable[[int, int], Inputs]:
        columns = self._next(rows)

        def decode(start: int, stop: int) -> Inputs:
            found = {}
            for tensor in self._tensors:
                values = columns.column(tensor.name).slice(start, stop - start)
                if not (tensor.is_optional and values.null_count == len(values)):
                    found[tensor.name] = self._array(values, tensor)
            return found

        return decode

    def _array(self, values: Any, tensor: TensorSpec) -> Array:
        """Return the values of a column as rows of `tensor`. Raises InvalidInput."""
        array = _even(values.combine_chunks(), self._arrow) if _is_number(tensor) else None
        if array is None:
            array = _array(values.to_pylist(), tensor)
        return array.reshape(-1, 1) if tensor.shape == (1,) and array.ndim == 1 else array

    def _go_to(self, row: int) -> None:
        """Go to the group of `row`, and pass over the rows before it."""
        before, group = 0, 0
        metadata = self._file.metadata
        while row >= before + metadata.row_group(group).num_rows:
            before += metadata.row_group(group).num_rows
            group += 1
        self._batches = self._file.iter_batches(
            self._rows_at_once(group),
            range(group, metadata.num_row_groups),
            [tensor.name for tensor in self._tensors],
            use_threads=False,
        )
        self._held = None
        skipped = row - before
        while skipped:
            skipped -= len(self._next(min(skipped, READ_ROWS)))

    def _rows_at_once(self, first: int) -> int:
        """Return how many rows are decoded at once in the groups from `first` on."""
        metadata = self._file.metadata
        groups = map(metadata.row_group, range(first, metadata.num_row_groups))
        row = max(group.total_byte_size // max(group.num_rows, 1) for group in groups)
        rows: int = max(min(READ_ROWS, READ_BYTES // max(row, 1)), 1)
        return rows

    def _next_batch(self) -> Any:
        """Return the next rows that are decoded at once. Raises DecodingError."""
        try:
            return next(self._batches)
        except StopIteration as err:
            raise DecodingError("expected a Parquet file; it ends before its last row") from err
        except self._arrow.ArrowException as err:
            raise DecodingError(f"expected a Parquet file: {err}") from err

    def _next(self, rows: int) -> Any:
        """Return the next `rows` rows as a table."""
        found = []
        while rows:
            if self._held is None or not len(self._held):
                self._held = self._next_batch()
            taken = self._held.slice(0, rows)
            self._held = self._held.slice(len(taken))
            found.append(taken)
            rows -= len(taken)
        return self._arrow.Table.from_batches(found)


def _check_type(kind: Any, tensor: TensorSpec, arrow: Any) -> None:
    """Check that a column of `kind` can be the input `tensor`. Raises InvalidInput."""
    types = arrow.types
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    name = tensor.datatype.name
    if name == "BF16":
        raise InvalidInput(
            f"input {tensor.name!r}: Parquet has no BF16: write its rows as .npz, UINT16 of the "
            "bits"
        )
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_bytes = is_text or types.is_binary(kind) or types.is_large_binary(kind)
    expected = arrow.binary() if name == "BYTES" else arrow.from_numpy_dtype(tensor.datatype.numpy)
    if not (is_bytes if name == "BYTES" else kind == expected):
        raise InvalidInput(
            f"input {tensor.name!r}: expected a column of {expected} for {name}; got {kind}"
        )


def _array(values: list[Any], tensor: TensorSpec) -> Array:
    """Return the values of a column as rows, value by value. Raises InvalidInput."""
    if tensor.datatype.name == "BYTES":
        array = np.empty(len(values), object)
        array[:] = [_encoded(value, tensor) for value in values]
        return np.array(array.tolist(), object) if isinstance(array[0], list) else array
    return _numbers(values, tensor)


def _is_number(tensor: TensorSpec) -> bool:
    return tensor.datatype.name not in ("BYTES", "BOOL")


def _even(column: Any, arrow: Any) -> Array | None:
    """Return rows without nulls and of one shape, without a step for each value; None of others."""
    shape = [len(column)]
    while arrow.types.is_list(column.type) or arrow.types.is_large_list(column.type):
        lengths = column.value_lengths()
        if column.null_count or len(lengths.unique()) != 1:
            return None
        shape.append(lengths[0].as_py())
        column = column.flatten()
    if column.null_count or arrow.types.is_fixed_size_list(column.type):
        return None
    array: Array = column.to_numpy(zero_copy_only=False).reshape(shape)
    return array


def _encoded(value: Any, tensor: TensorSpec) -> Any:
    if isinstance(value, list):
        return [_encoded(each, tensor) for each in value]
    if value is None:
        if not tensor.missing_is_nan:
            raise _null(tensor)
        return b""
    return value.encode() if isinstance(value, str) else value


def _numbers(values: list[Any], tensor: TensorSpec) -> Array:
    objects = np.array(values, object) if values else np.empty(0, object)
    missing = np.frompyfunc(_is_null, 1, 1)(objects).astype(bool)
    if missing.any():
        if not tensor.missing_is_nan:
            raise _null(tensor)
        objects[missing] = np.nan
    try:
        return objects.astype(tensor.datatype.numpy)
    except (TypeError, ValueError) as err:
        raise InvalidInput(f"input {tensor.name!r}: expected rows of one shape: {err}") from err


def _is_null(value: object) -> bool:
    return value is None


def _null(tensor: TensorSpec) -> InvalidInput:
    advice = missing_advice(tensor, True)
    return InvalidInput(f"input {tensor.name!r}: expected a value; got null{advice}")
