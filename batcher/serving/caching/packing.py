"""The outputs of an answer as one piece of bytes, and back.

An answer that is kept must not be a view: the rows of a batch would stay as long as one of them,
and whoever holds an array could change what others are to get. So outputs are copied into `bytes`,
which nobody can change, and arrays that are made of these bytes refuse to be written.

    length of the head, 4 bytes | head | elements of each output, each from a multiple of 8 on

The head is JSON: for each output its name, its form, its dtype, its shape, and its bytes. Answers
of one model mostly have one and the same head, so what a head says is remembered.

| form | elements |
|---|---|
| `array` | as they lie in memory, row-major |
| `texts`, of dtype BYTES | the length of each, 8 bytes, then all of them |
| `rows`, ragged | the shape of each row, 8 bytes an axis, then the elements of all rows |
| `text_rows`, ragged and of BYTES | the same, the elements as those of `texts` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate
from json import dumps, loads
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from batcher.core.ragged import is_ragged, ragged
from batcher.core.spec import Array

_LENGTH: Final = np.dtype("<u8")
_BYTE: Final = np.dtype("u1")
_HEAD_LENGTH: Final = 4
_GRAIN: Final = 8

MAX_KNOWN_HEADS: Final = 1024
"""Heads that are remembered, some hundred bytes each. Answers with free axes have many."""


class _Place(NamedTuple):
    """Where one output lies.

    Attributes:
        name: name of the output.
        form: as in the table above.
        dtype: of its elements; of texts it says nothing.
        shape: of the array; of ragged rows, their number and the number of axes of each.
        start: first byte behind the head.
        size: elements of an array.
    """

    name: str
    form: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    size: int


def pack(outputs: Mapping[str, Array], begin: bytes = b"") -> bytes:
    """Return `outputs` as bytes, behind the bytes `begin`. Any thread.

    Args:
        outputs: name to array; an array of objects holds `bytes`, or ragged rows.
        begin: of a length that is a multiple of 8.
    """
    entries: list[tuple[str, str, np.dtype[Any], tuple[int, ...], int]] = []
    pieces: list[bytes] = []
    for name, array in outputs.items():
        form, dtype, shape, data = _packed(array)
        entries.append((name, form, dtype, shape, len(data)))
        pieces.append(data)
        if rest := -len(data) % _GRAIN:
            pieces.append(bytes(rest))
    return b"".join([begin, _head(tuple(entries)), *pieces])


def unpack(packed: bytes, start: int = 0) -> dict[str, Array]:
    """Return the outputs in `packed`, which begin at `start`; nobody can write into them.

    Any thread. Raises ValueError: the bytes are no such outputs.
    """
    places, behind = _places_in(packed, start)
    return {place.name: _FORMS[place.form](packed, behind + place.start, place) for place in places}


def is_quick(packed: bytes, start: int = 0) -> bool:
    """Return whether `unpack` takes a few microseconds, however many bytes there are."""
    return all(place.form == "array" for place in _places_in(packed, start)[0])


def _places_in(packed: bytes, start: int) -> tuple[tuple[_Place, ...], int]:
    """Return what lies where, and the first byte behind the head."""
    first = start + _HEAD_LENGTH
    behind = first + int.from_bytes(packed[start:first], "little")
    return _places(packed[first:behind]), behind


@lru_cache(maxsize=MAX_KNOWN_HEADS)
def _head(entries: tuple[tuple[str, str, np.dtype[Any], tuple[int, ...], int], ...]) -> bytes:
    text = dumps([(name, form, dtype.str, *rest) for name, form, dtype, *rest in entries]).encode()
    text += b" " * (-(len(text) + _HEAD_LENGTH) % _GRAIN)
    return len(text).to_bytes(_HEAD_LENGTH, "little") + text


@lru_cache(maxsize=MAX_KNOWN_HEADS)
def _places(head: bytes) -> tuple[_Place, ...]:
    places, start = [], 0
    for name, form, dtype, sizes, nbytes in loads(head):
        shape = tuple(sizes)
        places.append(_Place(name, form, np.dtype(dtype), shape, start, prod(shape)))
        start += nbytes + -nbytes % _GRAIN
    return tuple(places)


def _packed(array: Array) -> tuple[str, np.dtype[Any], tuple[int, ...], bytes]:
    """Return form, dtype, shape and elements of `array`."""
    if not array.dtype.hasobject:
        # The dtype itself: to make its text takes longer than to copy some hundred bytes.
        return "array", array.dtype, array.shape, array.tobytes()
    if is_ragged(array):
        return _packed_rows([np.asarray(row) for row in array])
    return "texts", _BYTE, array.shape, _packed_texts(array.ravel().tolist())


def _packed_rows(rows: list[Array]) -> tuple[str, np.dtype[Any], tuple[int, ...], bytes]:
    shapes = np.array([row.shape for row in rows], _LENGTH)
    if rows[0].dtype.hasobject:
        texts = [text for row in rows for text in row.ravel().tolist()]
        return "text_rows", _BYTE, shapes.shape, shapes.tobytes() + _packed_texts(texts)
    data = b"".join([row.tobytes() for row in rows])
    return "rows", rows[0].dtype, shapes.shape, shapes.tobytes() + data


def _packed_texts(texts: list[bytes]) -> bytes:
    lengths = np.array([len(text) for text in texts], _LENGTH)
    return lengths.tobytes() + b"".join(texts)


def _array(packed: bytes, start: int, place: _Place) -> Array:
    return np.frombuffer(packed, place.dtype, place.size, start).reshape(place.shape)


def _texts(packed: bytes, start: int, place: _Place) -> Array:
    return _cut_texts(packed, start, place.size).reshape(place.shape)


def _cut_texts(packed: bytes, start: int, count: int) -> Array:
    """Return `count` texts, whose lengths begin at `start`."""
    begin = start + count * _LENGTH.itemsize
    # Lengths first: they are there, or a false number of them takes no memory.
    lengths = np.frombuffer(packed, _LENGTH, count, start).tolist()
    texts = np.empty(count, object)
    for index, length in enumerate(lengths):
        texts[index] = packed[begin : begin + length]
        begin += length
    texts.flags.writeable = False
    return texts


def _rows(packed: bytes, start: int, place: _Place) -> Array:
    if place.size < 1:  # without axes, any number of rows would take no bytes
        raise ValueError("expected ragged rows with axes")
    shapes = np.frombuffer(packed, _LENGTH, place.size, start).reshape(place.shape).tolist()
    sizes = [prod(shape) for shape in shapes]
    begin = start + place.size * _LENGTH.itemsize
    elements = (
        _cut_texts(packed, begin, sum(sizes))
        if place.form == "text_rows"
        else np.frombuffer(packed, place.dtype, sum(sizes), begin)
    )
    found = ragged(
        [
            elements[end - size : end].reshape(shape)
            for shape, size, end in zip(shapes, sizes, accumulate(sizes), strict=True)
        ]
    )
    found.flags.writeable = False
    return found


_FORMS: dict[str, Callable[[bytes, int, _Place], Array]] = {
    "array": _array,
    "texts": _texts,
    "rows": _rows,
    "text_rows": _rows,
}


def read_only(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return views of `outputs` that nobody can write into. Any thread."""
    return {name: _read_only(array) for name, array in outputs.items()}


def _read_only(array: Array) -> Array:
    rows = is_ragged(array)
    view = ragged([_read_only(row) for row in array]) if rows else array.view()
    view.flags.writeable = False
    return view
