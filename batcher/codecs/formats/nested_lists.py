"""Nested lists to arrays of the declared dtype, strictly.

numpy turns strings, booleans and fractions into almost anything without a word. Here a float input
also takes whole numbers, an integer input also takes floats without a fraction, and nothing else is
converted. These are errors that name the place of the value:

- a fraction, a string or a boolean for an integer input;
- a string or a boolean for a float input; null, unless the input says `missing: nan`;
- a value outside the range of the datatype.

Among BYTES an object `{"b64": "…"}` stands for the bytes that its base64 says.

The types of all values are gathered before numpy sees any value, at the speed of C. Without that,
one long string among many numbers would make numpy allocate the product of both. The slow walk that
finds the place of a wrong value runs only once a value is known to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from math import inf, nan
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.formats import bfloat16
from batcher.codecs.formats.base64_values import base64_text, from_base64
from batcher.core.spec import FLOATS, Array, TensorSpec, missing_advice
from batcher.errors import InvalidInput

_EXACT_FLOAT = 1 << 53
"""First whole number from which a float64 no longer tells neighbouring integers apart."""

_MAX_BF16 = 3.39e38
"""Largest BF16, to three digits."""

MAX_DEPTH = 32
"""Most levels of lists; numpy itself ends at 64 axes."""

IsWrong = Callable[[Any], bool]
"""Whether a value is the one to complain about."""


class _Lists(NamedTuple):
    """Nested lists of equal lengths, and what was found in them.

    Attributes:
        value: the lists themselves.
        tensor: spec of the input that they are for.
        place: where the outermost list stands in the input, such as `[0][2]`; empty for all rows.
        first: index of the first value in the list that stands at `place`.
        types: types of all values that are not lists.
        flat: those values, in row-major order.
        shape: lengths of the lists, level by level.
    """

    value: list[Any]
    tensor: TensorSpec
    place: str
    first: int
    types: set[type]
    flat: list[Any]
    shape: tuple[int, ...]


def array_from_lists(value: Any, tensor: TensorSpec, place: str = "", first: int = 0) -> Array:
    """Return nested lists `value` as an array of `tensor`'s dtype; the caller checks the shape.

    The innermost lists hold numbers, booleans or (for BYTES) strings. The first axis is the row.
    Where `value` is a part of a longer list, `place` says where that list stands in the input, such
    as `[0][2]`, and `first` is the index of the part's first value.

    Raises:
        InvalidInput: lists are of unequal length or nested too deeply, or the datatype does not
            admit a value.
    """
    if not isinstance(value, list):
        raise _no_list(value, tensor)
    types, flat, shape = _flattened(value, tensor)
    lists = _Lists(value, tensor, place, first, types, flat, shape)
    name = tensor.datatype.name
    if name == "BYTES":
        return _strings(_without_null(lists, b"") if tensor.missing_is_nan else lists)
    if name == "BOOL":
        if not types <= {bool}:
            raise _misfit(lists, lambda leaf: not isinstance(leaf, bool), "true or false")
        return np.array(flat, "?").reshape(shape)
    lists = _without_null(lists, nan) if tensor.missing_is_nan else lists
    if not lists.types <= {int, float}:
        raise _misfit(lists, _is_not_number, "a number")
    if name in FLOATS:
        return _floats(lists)
    return _integers(lists)


def _without_null(lists: _Lists, missing: Any) -> _Lists:
    """Return `lists` with the value `missing` in the place of each `null`."""
    if NoneType not in lists.types:
        return lists
    flat = [missing if leaf is None else leaf for leaf in lists.flat]
    types = (lists.types - {NoneType}) | {type(missing)}
    return lists._replace(flat=flat, types=types)


def _flattened(
    value: list[Any], tensor: TensorSpec
) -> tuple[set[type], list[Any], tuple[int, ...]]:
    """Return the types of all values that are not lists, those values, and the lists' lengths.

    Raises:
        InvalidInput: lists of one level have unequal lengths or stand beside values, or there are
            more than MAX_DEPTH levels.
    """
    level, shape = value, [len(value)]
    for _ in range(MAX_DEPTH):
        types = set(map(type, level))
        if list not in types:
            return types, level, tuple(shape)
        lengths = set(map(len, level)) if len(types) == 1 else set()
        if len(lengths) != 1:
            raise uneven(tensor)
        shape += lengths
        level = list(chain.from_iterable(level))
    raise too_deep(tensor)


def too_deep(tensor: TensorSpec) -> InvalidInput:
    """Return the error for lists of more than MAX_DEPTH levels."""
    return InvalidInput(
        f"input {tensor.name!r}: expected at most {MAX_DEPTH} levels of lists; got more"
    )


_OWN_REQUESTS = ". Rows of different lengths are requests of their own, which may come at once"


def uneven(tensor: TensorSpec) -> InvalidInput:
    """Return the error for lists of unequal lengths."""
    return InvalidInput(
        f"input {tensor.name!r}: expected {tensor.describe()} as nested lists of equal lengths; "
        f"got uneven ones{_OWN_REQUESTS if -1 in tensor.shape else ''}",
    )


def _no_list(value: Any, tensor: TensorSpec) -> InvalidInput:
    return InvalidInput(
        f"input {tensor.name!r}: expected {tensor.describe()} as nested lists; got {_kind(value)}"
    )


def _wide(lists: _Lists) -> Array:
    """Return numbers as float64, flat. Raises OverflowError: a number of hundreds of digits."""
    return np.fromiter(lists.flat, "<f8", len(lists.flat))


def _floats(lists: _Lists) -> Array:
    bf16 = lists.tensor.datatype.name == "BF16"
    dtype = np.dtype("<f4") if bf16 else lists.tensor.datatype.numpy
    limit = _MAX_BF16 if bf16 else float(np.finfo(dtype).max)
    try:
        wide = _wide(lists)
    except OverflowError as err:
        raise _beyond(lists, limit) from err
    with np.errstate(over="ignore"):
        array = wide.astype(dtype, copy=False)
    converted = bfloat16.from_float32(array) if bf16 else array
    numbers = bfloat16.to_float32(converted) if bf16 else array
    # an infinity that was sent is fine; one that the conversion made is out of range
    if (
        numbers.size
        and not np.isfinite(numbers).all()
        and (np.isinf(numbers) & np.isfinite(wide)).any()
    ):
        raise _beyond(lists, limit)
    return converted.reshape(lists.shape)


def _beyond(lists: _Lists, limit: float) -> InvalidInput:
    return _misfit(lists, lambda leaf: limit < abs(leaf) < inf, f"a number within ±{limit:.3g}")


def _integers(lists: _Lists) -> Array:
    dtype = lists.tensor.datatype.numpy
    limits = np.iinfo(dtype)
    out_of_range = f"{limits.min} to {limits.max}"
    if float in lists.types:
        raw = _whole_floats(lists)
        if raw.size and np.abs(raw).max() >= _EXACT_FLOAT:
            raise _misfit(lists, lambda leaf: abs(leaf) >= _EXACT_FLOAT, "an exact integer")
        if raw.size and (raw.min() < limits.min or raw.max() > limits.max):
            raise _misfit(lists, lambda leaf: not limits.min <= leaf <= limits.max, out_of_range)
        return raw.astype(dtype).reshape(lists.shape)
    try:
        return np.array(lists.flat, dtype).reshape(lists.shape)
    except OverflowError as err:
        raise _misfit(
            lists, lambda leaf: not limits.min <= leaf <= limits.max, out_of_range
        ) from err


def _whole_floats(lists: _Lists) -> Array:
    """Return values, floats without a fraction among them, as float64, flat."""
    try:
        raw = _wide(lists)
    except OverflowError as err:
        raise _misfit(lists, lambda leaf: abs(leaf) >= _EXACT_FLOAT, "an exact integer") from err
    if not (np.isfinite(raw) & (raw == np.floor(raw))).all():
        raise _misfit(lists, _is_not_whole, "a whole number")
    return raw


def _strings(lists: _Lists) -> Array:
    texts, types = lists.flat, lists.types
    if dict in types:
        texts = [_from_object(leaf) for leaf in texts]
        types = set(map(type, texts))
    if not types <= {str, bytes}:
        expected = 'a string, or an object {"b64": "…"},'
        raise _misfit(lists, lambda leaf: not isinstance(_from_object(leaf), str | bytes), expected)
    try:
        if types == {str}:
            texts = list(map(str.encode, texts))
        elif str in types:
            texts = [leaf.encode() if isinstance(leaf, str) else leaf for leaf in texts]
    except UnicodeEncodeError as err:
        raise InvalidInput(
            f"input {lists.tensor.name!r}: expected text; got half of a surrogate pair"
        ) from err
    flat = np.empty(len(texts), dtype=object)
    flat[:] = texts
    return flat.reshape(lists.shape)


def _from_object(leaf: Any) -> Any:
    """Return the bytes of an object `{"b64": "…"}`, and any other value as it is."""
    text = base64_text(leaf)
    return leaf if text is None else from_base64(text)


def _leaves(value: Any, place: str, first: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield each value that is not a list, with its place, such as `[0][2]`."""
    if isinstance(value, list):
        for index, inner in enumerate(value, first):
            yield from _leaves(inner, f"{place}[{index}]")
    else:
        yield place, value


def _misfit(lists: _Lists, is_wrong: IsWrong, expected: str) -> InvalidInput:
    """Return the error for the first value that `is_wrong`, with its place."""
    places = _leaves(lists.value, lists.place, lists.first)
    if lists.tensor.missing_is_nan:
        places = ((place, leaf) for place, leaf in places if leaf is not None)
    place, leaf = next(
        ((place, leaf) for place, leaf in places if is_wrong(leaf)), ("", lists.value)
    )
    return InvalidInput(
        f"input {lists.tensor.name!r}{place}: expected {expected} for "
        f"{lists.tensor.datatype.name}; got {_kind(leaf)}"
        f"{missing_advice(lists.tensor, leaf is None)}",
    )


def _is_not_number(leaf: Any) -> bool:
    return isinstance(leaf, bool) or not isinstance(leaf, int | float)


def _is_not_whole(leaf: Any) -> bool:
    return leaf != leaf or leaf in (inf, -inf) or leaf != int(leaf)


def _kind(leaf: Any) -> str:
    if leaf is None or isinstance(leaf, bool):
        return {None: "null", True: "true", False: "false"}[leaf]
    if isinstance(leaf, dict | list):
        return "an object" if isinstance(leaf, dict) else "a list"
    text = repr(leaf[:40] if isinstance(leaf, str | bytes) else leaf)
    return text if len(text) <= 40 else f"{text[:37]}…"
