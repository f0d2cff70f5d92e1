"""Nested lists to arrays of the declared dtype, strictly.

numpy turns strings, booleans and fractions into almost anything without a word. Here a float input
also takes whole numbers, an integer input also takes floats without a fraction, and nothing else is
converted. These are errors that name the place of the value:

- a fraction, a string or a boolean for an integer input;
- a string, a boolean or null for a float input;
- a value outside the range of the datatype.

The types of all values are gathered before numpy sees any value, at the speed of C. Without that,
one long string among many numbers would make numpy allocate the product of both. The slow walk that
finds the place of a wrong value runs only once a value is known to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from batcher.codecs.formats import bfloat16
from batcher.core.spec import Array, TensorSpec
from batcher.errors import InvalidInput

_EXACT_FLOAT = 1 << 53
"""First whole number from which a float64 no longer tells neighbouring integers apart."""

_MAX_BF16 = 3.39e38
"""Largest BF16, to three digits."""

MAX_DEPTH = 32
"""Most levels of lists; numpy itself ends at 64 axes."""

IsWrong = Callable[[Any], bool]
"""Whether a value is the one to complain about."""


def array_from_lists(value: Any, tensor: TensorSpec) -> Array:
    """Return nested lists `value` as an array of `tensor`'s dtype; the caller checks the shape.

    The innermost lists hold numbers, booleans or (for BYTES) strings. The first axis is the row.

    Raises:
        InvalidInput: lists are of unequal length or nested too deeply, or the datatype does not
            admit a value.
    """
    if not isinstance(value, list):
        raise _no_list(value, tensor)
    types, shape = _types(value, tensor), _shape(value)
    name = tensor.datatype.name
    if name == "BYTES":
        return _strings(value, tensor, types, shape)
    if name == "BOOL":
        if not types <= {bool}:
            raise _misfit(value, tensor, lambda leaf: not isinstance(leaf, bool), "true or false")
        return _shaped(value, tensor, np.dtype("?"))
    if not types <= {int, float}:
        raise _misfit(value, tensor, _is_not_number, "a number")
    if name in ("FP16", "FP32", "FP64", "BF16"):
        return _floats(value, tensor)
    return _integers(value, tensor, types)


def _types(value: list[Any], tensor: TensorSpec) -> set[type]:
    """Return the types of all values that are not lists.

    Raises:
        InvalidInput: lists of one level have unequal lengths or stand beside values, or there are
            more than MAX_DEPTH levels.
    """
    level = value
    for _ in range(MAX_DEPTH):
        types = set(map(type, level))
        if list not in types:
            return types
        if len(types) > 1 or len(set(map(len, level))) > 1:
            raise _uneven(tensor)
        level = list(chain.from_iterable(level))
    raise InvalidInput(
        f"input {tensor.name!r}: expected at most {MAX_DEPTH} levels of lists; got more"
    )


def _shaped(value: list[Any], tensor: TensorSpec, dtype: np.dtype[Any]) -> Array:
    try:
        return np.array(value, dtype)
    except ValueError as err:
        raise _uneven(tensor) from err


def _no_list(value: Any, tensor: TensorSpec) -> InvalidInput:
    return InvalidInput(
        f"input {tensor.name!r}: expected {tensor.describe()} as nested lists; got {_kind(value)}"
    )


def _uneven(tensor: TensorSpec) -> InvalidInput:
    return InvalidInput(
        f"input {tensor.name!r}: expected {tensor.describe()} as nested lists of equal lengths; "
        "got uneven ones",
    )


def _floats(value: list[Any], tensor: TensorSpec) -> Array:
    bf16 = tensor.datatype.name == "BF16"
    dtype = np.dtype("<f4") if bf16 else tensor.datatype.numpy
    limit = _MAX_BF16 if bf16 else float(np.finfo(dtype).max)
    try:
        wide = _shaped(value, tensor, np.dtype("<f8"))
    # a whole number of hundreds of digits
    except OverflowError as err:
        raise _misfit(
            value, tensor, lambda leaf: abs(leaf) > limit, f"a number within ±{limit:.3g}"
        ) from err
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    converted = bfloat16.from_float32(array) if bf16 else array
    numbers = bfloat16.to_float32(converted) if bf16 else array
    # an infinity that was sent is fine; one that the conversion made is out of range
    if (
        numbers.size
        and not np.isfinite(numbers).all()
        and (np.isinf(numbers) & np.isfinite(wide)).any()
    ):
        raise _misfit(
            value, tensor, lambda leaf: abs(leaf) > limit, f"a number within ±{limit:.3g}"
        )
    return converted


def _integers(value: list[Any], tensor: TensorSpec, types: set[type]) -> Array:
    limits = np.iinfo(tensor.datatype.numpy)
    out_of_range = f"{limits.min} to {limits.max}"
    if float in types:
        raw = _wide_floats(value, tensor)
        if raw.size and np.abs(raw).max() >= _EXACT_FLOAT:
            raise _misfit(value, tensor, lambda leaf: abs(leaf) >= _EXACT_FLOAT, "an exact integer")
        if raw.size and (raw.min() < limits.min or raw.max() > limits.max):
            raise _misfit(
                value, tensor, lambda leaf: not limits.min <= leaf <= limits.max, out_of_range
            )
        return raw.astype(tensor.datatype.numpy)
    try:
        return _shaped(value, tensor, tensor.datatype.numpy)
    except OverflowError as err:
        raise _misfit(
            value, tensor, lambda leaf: not limits.min <= leaf <= limits.max, out_of_range
        ) from err


def _wide_floats(value: list[Any], tensor: TensorSpec) -> Array:
    """Return values, floats without a fraction among them, as float64."""
    try:
        raw = _shaped(value, tensor, np.dtype("<f8"))
    except OverflowError as err:
        raise _misfit(
            value, tensor, lambda leaf: abs(leaf) >= _EXACT_FLOAT, "an exact integer"
        ) from err
    if not (np.isfinite(raw) & (raw == np.floor(raw))).all():
        raise _misfit(value, tensor, _is_not_whole, "a whole number")
    return raw


def _strings(
    value: list[Any], tensor: TensorSpec, types: set[type], shape: tuple[int, ...]
) -> Array:
    if not types <= {str, bytes}:
        raise _misfit(value, tensor, lambda leaf: not isinstance(leaf, str | bytes), "a string")
    leaves = [leaf for _, leaf in _leaves(value)]
    if len(leaves) != prod(shape):
        raise _uneven(tensor)
    flat = np.empty(len(leaves), dtype=object)
    try:
        flat[:] = [leaf.encode() if isinstance(leaf, str) else leaf for leaf in leaves]
    except UnicodeEncodeError as err:
        raise InvalidInput(
            f"input {tensor.name!r}: expected text; got half of a surrogate pair"
        ) from err
    return flat.reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is not a list, with its place, such as `[0][2]`."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{index}]")
    else:
        yield place, value


def _misfit(value: Any, tensor: TensorSpec, is_wrong: IsWrong, expected: str) -> InvalidInput:
    """Return the error for the first value that `is_wrong`, with its place."""
    place, leaf = next(
        ((place, leaf) for place, leaf in _leaves(value) if is_wrong(leaf)), ("", value)
    )
    return InvalidInput(
        f"input {tensor.name!r}{place}: expected {expected} for {tensor.datatype.name}; got "
        f"{_kind(leaf)}",
    )


def _is_not_number(leaf: Any) -> bool:
    return isinstance(leaf, bool) or not isinstance(leaf, int | float)


def _is_not_whole(leaf: Any) -> bool:
    return leaf != leaf or leaf in (float("inf"), float("-inf")) or leaf != int(leaf)


def _kind(leaf: Any) -> str:
    if leaf is None or isinstance(leaf, bool):
        return {None: "null", True: "true", False: "false"}[leaf]
    if isinstance(leaf, dict | list):
        return "an object" if isinstance(leaf, dict) else "a list"
    text = repr(leaf[:40] if isinstance(leaf, str | bytes) else leaf)
    return text if len(text) <= 40 else f"{text[:37]}…"
