"""Lists that are too long to become Python objects at once: read piece by piece into an array.

A list of a million numbers takes 4 MB as an array, and 32 MB as Python objects. So a large document
is not built whole. Its lists stay bytes (`LongList`) until it is known which input they are for;
then pieces of some 256 KiB become objects, each piece is checked and copied into the array, and its
objects are gone before the next piece is read. What one piece may hold, and what is wrong with it,
is the matter of `array_from_lists`, as for a short list.

The array grows while pieces come, up to the limits of the request. So a body that stands for more
rows or values than the model's queue could ever hold costs no more than what fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from sys import getsizeof
from typing import Any

import numpy as np

from batcher.codecs.formats.nested_lists import (
    MAX_DEPTH,
    array_from_lists,
    too_deep,
    uneven,
)
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, TensorSpec, dtype_text
from batcher.errors import InvalidInput, TooLarge

PIECE_BYTES = 1 << 18
"""Bytes of a body that become Python objects at once: large enough for the speed of C, and their
objects still fit into a processor's cache.
"""

_GROWTH = 16
"""An array that is full grows by the sixteenth part, so that little of it is ever empty."""


class LongList(ABC):
    """A list that is still bytes."""

    @abstractmethod
    def pieces(self) -> Iterator[list[Any] | LongList]:
        """Yield the list's elements in their order: some elements as a list, or one long element.

        A long element has to be read before the next piece is asked for. Raises DecodingError: the
        bytes are not what their format says.
        """

    def read(self) -> int:
        """Read all elements and forget them, and return how many they are.

        Raises DecodingError: the bytes are not what their format says.
        """
        count = 0
        for piece in self.pieces():
            if isinstance(piece, LongList):
                piece.read()
                count += 1
            else:
                count += len(piece)
        return count


class UnreadLists:
    """The long lists of a document that nobody has read from end to end.

    Whether the document is right is not known before they are read.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._lists: dict[int, LongList] = {}

    def add(self, found: LongList) -> None:
        """Note a list."""
        self._lists[id(found)] = found

    def remove(self, found: LongList) -> None:
        """Forget a list, which was read."""
        self._lists.pop(id(found), None)

    def read_all(self) -> None:
        """Read every list that is left. Raises DecodingError, see `LongList.read`."""
        while self._lists:
            next(iter(self._lists.values())).read()


class ArrayBuilder:
    """Makes the array of one input of the rows that come, within the limits of a request.

    Args:
        tensor: spec of the input.
        limits: most rows, and most bytes of the array.
        max_values: most elements of the array; None for as many as the most rows have.
        flat: whether the values of several rows may come as one list, so that nobody can count the
            rows here.
    """

    def __init__(
        self,
        tensor: TensorSpec,
        limits: DecodingLimits,
        max_values: int | None = None,
        flat: bool = False,
    ) -> None:
        """Begin without rows."""
        self._tensor = tensor
        self._limits = limits
        self._max_values = max_values
        self._is_flat = flat
        self._max_row_values = None if tensor.free_axes else limits.max_rows * tensor.fixed_size
        self._flat = np.empty(0, tensor.datatype.numpy)
        self._used = 0
        self._object_bytes = 0
        self._rows = 0
        self._row_shape: tuple[int, ...] | None = None

    def add(self, rows: list[Any] | LongList) -> None:
        """Add a list of rows, or one long row.

        Raises:
            InvalidInput: a row has another shape than the rows before, there are too many values,
                or the datatype does not admit a value.
            TooLarge: there are more rows or bytes than the limits allow.
        """
        if isinstance(rows, LongList):
            self._add_rows(1, self._fill(rows, f"[{self._rows}]", 1))
        else:
            array = (
                stacked(rows, self._tensor)
                if rows and isinstance(rows[0], np.ndarray)
                else array_from_lists(rows, self._tensor, "", self._rows)
            )
            self.add_array(array)

    def add_array(self, rows: Array) -> None:
        """Add rows of the tensor's dtype; raises as `add` does."""
        self._append(rows)
        self._add_rows(len(rows), rows.shape[1:])

    def array(self) -> Array:
        """Return the array of all rows that came."""
        self._flat.resize(self._used, refcheck=False)
        shape = () if self._row_shape is None else self._row_shape
        return self._flat.reshape(self._rows, *shape)

    def _add_rows(self, count: int, shape: tuple[int, ...]) -> None:
        if count and self._row_shape not in (None, shape):
            raise uneven(self._tensor)
        self._rows += count
        self._row_shape = shape if count else self._row_shape
        self._check_limits()

    def _fill(self, values: LongList, place: str, depth: int) -> tuple[int, ...]:
        """Append the values of a list within a row, and return the shape of the list."""
        if depth >= MAX_DEPTH:
            raise too_deep(self._tensor)
        count, inner = 0, None
        for piece in values.pieces():
            if isinstance(piece, LongList):
                length, shape = 1, self._fill(piece, f"{place}[{count}]", depth + 1)
            else:
                array = array_from_lists(piece, self._tensor, place, count)
                length, shape = len(array), array.shape[1:]
                self._append(array)
            if inner not in (None, shape):
                raise uneven(self._tensor)
            inner = shape
            count += length
        return count, *(inner or ())

    def _append(self, array: Array) -> None:
        stop = self._used + array.size
        if array.dtype != self._flat.dtype:
            raise InvalidInput(
                f"input {self._tensor.name!r}: expected {self._tensor.describe()}; got rows of "
                f"{dtype_text(array.dtype)}"
            )
        self._check_values(stop)
        if array.dtype.hasobject:
            self._object_bytes += sum(map(getsizeof, array.flat))
        if stop > len(self._flat):
            # numpy moves large arrays without copying them: their pages are mapped elsewhere
            self._flat.resize(stop + stop // _GROWTH, refcheck=False)
        self._flat[self._used : stop] = array.reshape(-1)
        self._used = stop
        self._check_limits()

    def _check_values(self, count: int) -> None:
        name = self._tensor.name
        if self._max_values is not None and count > self._max_values:
            raise InvalidInput(f"input {name!r}: expected {self._max_values} values; got more")
        if self._max_row_values is not None and count > self._max_row_values:
            raise TooLarge(
                f"input {name!r}: expected at most {self._max_row_values} values, those of "
                f"{self._limits.max_rows} rows, what the queue can ever hold (max_queue_rows); got "
                "more"
            )

    def _check_limits(self) -> None:
        nbytes = self._used * self._flat.itemsize + self._object_bytes
        self._limits.check(0 if self._is_flat else self._rows, nbytes, self._tensor.name)


def stacked(rows: list[Any], tensor: TensorSpec) -> Array:
    """Return arrays, one for each row, as one array. Raises InvalidInput: they are not alike."""
    if not all(isinstance(row, np.ndarray) for row in rows):
        raise uneven(tensor)
    if len({(row.dtype, row.shape) for row in rows}) > 1:
        raise InvalidInput(
            f"input {tensor.name!r}: expected rows of one dtype and shape; got several"
        )
    return np.stack(rows)


def array_from_value(
    value: Any,
    tensor: TensorSpec,
    limits: DecodingLimits,
    max_values: int | None = None,
    flat: bool = False,
) -> Array:
    """Return nested lists, long or not, as an array of `tensor`'s dtype.

    The caller checks the shape, and whether a short list is within the limits. The arguments are
    those of `ArrayBuilder`.

    Raises:
        InvalidInput: as `array_from_lists`; or a long list has more than `max_values` values.
        TooLarge: a long list has more rows, values or bytes than the limits allow.
    """
    if not isinstance(value, LongList):
        return array_from_lists(value, tensor)
    builder = ArrayBuilder(tensor, limits, max_values, flat)
    for piece in value.pieces():
        builder.add(piece)
    return builder.array()
