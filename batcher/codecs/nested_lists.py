"""Nested lists to arrays of the declared dtype, strictly.

numpy turns strings, booleans and fractions into almost anything without a word. Here whole numbers are fine for float
inputs, and nothing else is converted: a fraction, string or boolean for an integer input, a boolean or null for a float
input, a value out of the datatype's range are errors that name the place. The common case costs one `np.array` and one
cast; the slow walk that finds the place runs only once something is known to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from batcher.codecs import bfloat16
from batcher.errors import InvalidInput
from batcher.spec import Array, TensorSpec

_EXACT_FLOAT = 1 << 53
"""Beyond this a float64 no longer tells neighbouring integers apart."""

Leaf = Callable[[Any], bool]


def array_from_lists(value: Any, tensor: TensorSpec, may_hold_booleans: bool = True) -> Array:
    """Return nested lists `value` as an array of `tensor`'s dtype; its shape is for the caller to check.

    Args:
        value: lists of lists of numbers, booleans or (for BYTES) strings; the first level is the row.
        tensor: says the datatype.
        may_hold_booleans: False where the caller knows there is none among the numbers, which saves a walk over them.

    Raises:
        InvalidInput: lists of unequal length, or a value that the datatype does not admit.
    """
    name = tensor.datatype.name
    if name == "BYTES":
        return _strings(value, tensor)
    raw = _raw_array(value, tensor)
    if name == "BOOL":
        return _booleans(raw, value, tensor)
    if raw.dtype.kind not in "iuf":
        raise _misfit(value, tensor, _is_no_number, "a number")
    if may_hold_booleans and raw.size and any(isinstance(leaf, bool) for _, leaf in _leaves(value)):
        raise _misfit(value, tensor, _is_no_number, "a number")
    return _floats(raw, value, tensor) if name in ("FP16", "FP32", "FP64", "BF16") else _integers(raw, value, tensor)


def _raw_array(value: Any, tensor: TensorSpec) -> Array:
    if not isinstance(value, list):
        raise InvalidInput(f"input {tensor.name!r}: expected {tensor.describe()} as nested lists; got {_kind(value)}")
    try:
        return np.array(value)
    except (ValueError, OverflowError) as err:
        raise InvalidInput(
            f"input {tensor.name!r}: expected {tensor.describe()} as nested lists of equal lengths; got uneven ones",
        ) from err


def _floats(raw: Array, value: Any, tensor: TensorSpec) -> Array:
    bf16 = tensor.datatype.name == "BF16"
    with np.errstate(over="ignore"):
        array = raw.astype("<f4" if bf16 else tensor.datatype.numpy)
    if bf16:
        array = bfloat16.to_float32(bits := bfloat16.from_float32(array))
    if raw.size and not np.isfinite(array).all() and (np.isinf(array) & np.isfinite(raw)).any():
        limit = 3.39e38 if bf16 else float(np.finfo(tensor.datatype.numpy).max)
        raise _misfit(value, tensor, lambda leaf: abs(leaf) > limit, f"a number within ±{limit:.3g}")
    return bits if bf16 else array


def _integers(raw: Array, value: Any, tensor: TensorSpec) -> Array:
    limits = np.iinfo(tensor.datatype.numpy)
    if raw.dtype.kind == "f" and raw.size:
        if not (np.isfinite(raw) & (raw == np.floor(raw))).all():
            raise _misfit(value, tensor, _is_no_whole_number, "a whole number")
        if np.abs(raw).max() > _EXACT_FLOAT:
            raise _misfit(value, tensor, lambda leaf: abs(leaf) > _EXACT_FLOAT, "an exact integer")
    if raw.size and (raw.min() < limits.min or raw.max() > limits.max):
        raise _misfit(value, tensor, lambda leaf: not limits.min <= leaf <= limits.max, f"{limits.min} to {limits.max}")
    return raw.astype(tensor.datatype.numpy)


def _booleans(raw: Array, value: Any, tensor: TensorSpec) -> Array:
    if raw.size and raw.dtype.kind != "b":
        raise _misfit(value, tensor, lambda leaf: not isinstance(leaf, bool), "true or false")
    return raw.astype("?")


def _strings(value: Any, tensor: TensorSpec) -> Array:
    _raw_array(value if not isinstance(value, list) else [], tensor)
    leaves = list(_leaves(value))
    shape = _shape(value)
    if any(not isinstance(leaf, str | bytes) for _, leaf in leaves) or len(leaves) != int(np.prod(shape)):
        raise _misfit(value, tensor, lambda leaf: not isinstance(leaf, str | bytes), "a string")
    flat = np.empty(len(leaves), dtype=object)
    flat[:] = [leaf.encode() if isinstance(leaf, str) else leaf for _, leaf in leaves]
    return flat.reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{index}]")
    else:
        yield place, value


def _misfit(value: Any, tensor: TensorSpec, wrong: Leaf, expected: str) -> InvalidInput:
    place, leaf = next(((place, leaf) for place, leaf in _leaves(value) if wrong(leaf)), ("", value))
    return InvalidInput(
        f"input {tensor.name!r}{place}: expected {expected} for {tensor.datatype.name}; got {_kind(leaf)}",
    )


def _is_no_number(leaf: Any) -> bool:
    return isinstance(leaf, bool) or not isinstance(leaf, int | float)


def _is_no_whole_number(leaf: Any) -> bool:
    return leaf != leaf or leaf in (float("inf"), float("-inf")) or leaf != int(leaf)


def _kind(leaf: Any) -> str:
    if leaf is None or isinstance(leaf, bool):
        return {None: "null", True: "true", False: "false"}[leaf]
    if isinstance(leaf, dict | list):
        return "an object" if isinstance(leaf, dict) else "a list"
    text = repr(leaf)
    return text if len(text) <= 40 else f"{text[:37]}…"
