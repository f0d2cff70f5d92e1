"""Pictures in JSON: `{"b64": "…"}` in place of a row's numbers, as TensorFlow Serving has bytes.

    by row      {"instances": [{"b64": "…"}, {"image": {"b64": "…"}, "scale": 2}, …]}
    by column   {"inputs": {"image": [{"b64": "…"}, …], "scale": [2, …]}}

A picture alone in place of a column is a column of one row, and in place of all columns the only
row of the only input. A row of the same input may also be numbers. As in a form, the heads of all
pictures of a request are checked, and their pixels counted together, before the first picture is
decoded. A large document is read piece by piece, so that its numbers never are objects all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.base64_values import B64, base64_text, from_base64
from batcher.codecs.formats.images import Picture, check_together, opened, rows_from_pictures
from batcher.codecs.formats.long_lists import ArrayBuilder, LongList
from batcher.codecs.formats.marks import has_mark
from batcher.codecs.formats.rows import is_bare, only_name
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.error_text import brief, brief_names
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ClientError, DecodingError, InvalidInput, TooLarge

_MARKS = f'"{B64}"'.encode(), b"\\u00"
"""Text without which a document has no picture: the name, and the beginning of each code that may
stand for one of its letters.
"""


def takes_pictures(spec: ModelSpec) -> bool:
    """Return whether an input of the model `spec` is made of a picture."""
    return any(tensor.image is not None for tensor in spec.inputs)


def may_have_pictures(body: Buffer, spec: ModelSpec) -> bool:
    """Return whether `body`, JSON for the model `spec`, may have a picture in it."""
    return takes_pictures(spec) and has_mark(body, _MARKS)


class PictureRows:
    """The rows of an input that is made of pictures, each a picture or numbers.

    Attributes:
        pictures: pictures whose heads were checked, by the index of their row.
    """

    def __init__(self, tensor: TensorSpec, max_pixels: int, limits: DecodingLimits) -> None:
        """Begin without rows."""
        self.pictures: dict[int, Picture] = {}
        self._tensor = tensor
        self._max_pixels = max_pixels
        self._limits = limits
        self._arrays: dict[int, Array] = {}
        self._nbytes = 0

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.pictures) + len(self._arrays)

    def add(self, value: Any) -> None:
        """Add a row.

        Raises:
            DecodingError: the row is a file that is no picture.
            InvalidInput: the row is neither base64 nor numbers of the input's shape.
            TooLarge: there are more rows, bytes or pixels than a request may have.
        """
        index, text = self.count, base64_text(value)
        shape = self._add_numbers(value, index) if text is None else self._add_picture(text, index)
        self._nbytes += prod(shape) * self._tensor.datatype.numpy.itemsize
        self._limits.check(index + 1, self._nbytes, self._tensor.name)

    def _add_numbers(self, value: Any, index: int) -> tuple[int, ...]:
        rows = ArrayBuilder(self._tensor, self._limits)
        rows.add(value if isinstance(value, LongList) else [value])
        row: Array = rows.array()[0]
        self._arrays[index] = row
        shape: tuple[int, ...] = row.shape
        return shape

    def _add_picture(self, text: str, index: int) -> tuple[int, ...]:
        try:
            picture = opened(from_base64(text), "", self._tensor, self._max_pixels)
        except ClientError as err:
            raise self._placed(err, index) from err
        self.pictures[index] = picture
        return picture.row_shape(self._tensor)

    def array(self) -> Array:
        """Return the rows, one or more: shape (rows, *row shape). Raises as `add` does."""
        tensor = self._tensor
        shapes = {picture.row_shape(tensor) for picture in self.pictures.values()}
        shapes |= {array.shape for array in self._arrays.values()}
        if len(shapes) > 1:
            found = ", ".join(sorted(str(list(shape)) for shape in shapes)[:4])
            raise InvalidInput(
                f"input {tensor.name!r}: expected rows of one shape in one request; got {found}"
            )
        rows = np.empty((self.count, *next(iter(shapes))), tensor.datatype.numpy)
        for index, array in self._arrays.items():
            rows[index] = array
        for index, picture in self.pictures.items():
            try:
                rows[index] = rows_from_pictures([picture], tensor, self._limits)[0]
            except ClientError as err:
                raise self._placed(err, index) from err
        return rows

    def _placed(self, error: ClientError, index: int) -> ClientError:
        """Return `error` with the place of the row that is at fault."""
        kinds = (DecodingError, TooLarge, InvalidInput)
        kind = next((kind for kind in kinds if isinstance(error, kind)), ClientError)
        return kind(f"input {self._tensor.name!r}, row {index}: {error}")


def with_pictures(
    document: Any, spec: ModelSpec, max_pixels: int, limits: DecodingLimits
) -> dict[str, Any]:
    """Return the named values of `document` with an array in place of each input of pictures.

    `document` has either layout, and its objects `{"b64": ...}` are still there. Values of other
    inputs stay as they are. Raises as `PictureRows.add` does.
    """
    columns: dict[str, Any] = {}
    pictures = {
        tensor.name: PictureRows(tensor, max_pixels, limits)
        for tensor in spec.inputs
        if tensor.image is not None
    }
    by_row = "instances" in document
    values = _rows(document["instances"], spec) if by_row else _columns(document["inputs"], spec)
    for name, value in values:
        if name in pictures:
            pictures[name].add(value)
        elif by_row:
            columns.setdefault(name, []).append(value)
        else:
            columns[name] = value
    return columns | _decoded(pictures, max_pixels)


def _decoded(pictures: dict[str, PictureRows], max_pixels: int) -> dict[str, Array]:
    """Return the array of each input that has rows; raises as `PictureRows.add` does."""
    found = chain.from_iterable(rows.pictures.values() for rows in pictures.values())
    check_together(list(found), max_pixels)
    # An input that is not there stays away: the check of the inputs names it.
    return {name: rows.array() for name, rows in pictures.items() if rows.count}


def _rows(instances: Any, spec: ModelSpec) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each value of rows. Raises InvalidInput."""
    names = {tensor.name for tensor in spec.inputs}
    required = {tensor.name for tensor in spec.required}
    only = only_name(spec)
    for index, row in enumerate(_elements(instances, '"instances"')):
        if only and is_bare(row, only):
            yield only, row
        elif isinstance(row, dict) and required <= row.keys() <= names:
            yield from row.items()
        else:
            got = brief_names(row) if isinstance(row, dict) else type(row).__name__
            expected = ", ".join(map(repr, sorted(names)))
            raise InvalidInput(
                f'"instances"[{index}]: expected an object of {expected}; got {got:.200}'
            )


def _columns(inputs: Any, spec: ModelSpec) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each row of pictures, and of each whole column of others."""
    only = only_name(spec)
    if only and is_bare(inputs, only):
        inputs = {only: inputs}
    if not isinstance(inputs, dict):
        raise InvalidInput(
            f'"inputs": expected an object of name to values; got {brief(inputs, 60)}'
        )
    made_of_pictures = {tensor.name for tensor in spec.inputs if tensor.image is not None}
    for name, column in inputs.items():
        if name in made_of_pictures and base64_text(column) is not None:
            yield name, column
        elif name in made_of_pictures:
            for value in _elements(column, f"input {name!r}"):
                yield name, value
        else:
            yield name, column


def _elements(rows: Any, place: str) -> Iterator[Any]:
    """Yield the rows of a list that may be long. Raises InvalidInput if `rows` is no list."""
    if isinstance(rows, LongList):
        for piece in rows.pieces():
            if isinstance(piece, LongList):
                yield piece
            else:
                yield from piece
    elif isinstance(rows, list | np.ndarray):
        yield from rows
    else:
        raise InvalidInput(f"{place}: expected a list of rows; got {type(rows).__name__}")
