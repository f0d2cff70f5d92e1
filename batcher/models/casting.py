"""An array becomes one of the dtype that the model's output declares, where no value changes.

NumPy's rule of the `same_kind` decides, and where it leaves room for wrong numbers, the values do:

    from                          to                   allowed
    float                         float                yes; a finite number must stay finite
    whole number, boolean         float                yes; a finite number must stay finite, and
                                                       for FP64 a whole number must stay that number
    whole number, boolean         whole number         where the numbers fit
    Python numbers (object)       any of these         as their own types
    text (`str`)                  BYTES                as UTF-8
    a dtype S, `bytearray`        BYTES                yes
    float to whole number, complex, anything else      no: the error says what to write

NaN and infinity pass from float to float. A number that does not fit fails its own row alone.

NumPy has no BF16: an array of the dtype uint16 for an output of BF16 holds bits and stays as it is.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from batcher.codecs.formats.bfloat16 import from_float32
from batcher.core.element_sizes import pieces_of
from batcher.core.error_text import brief
from batcher.core.spec import Array, TensorSpec

_MENDS = {
    ("f", "i"): "round it in the model, or declare FP32",
    ("f", "b"): "compare it in the model, or declare FP32",
    ("i", "b"): "compare it with 0 in the model, or declare an integer dtype",
    ("c", ""): "take `.real`, or `abs()` of it, in the model",
    ("M", ""): "write `.astype('int64')` in the model, and declare INT64",
    ("m", ""): "write `.astype('int64')` in the model, and declare INT64",
    ("O", ""): "return numbers, such as `float(value)` of each",
}
"""What to write, by the kinds of both dtypes; an empty second kind stands for every kind."""


_BYTES = frozenset((bytes, np.bytes_))
"""Types of elements that stay as they are."""

_EXACT_FLOAT = 1 << 53
"""First whole number from which a float64 no longer tells neighbouring whole numbers apart."""


class CannotCast(Exception):
    """No array of that dtype becomes one of the declared dtype.

    Attributes:
        advice: what to write in the model, behind a colon; may be empty.
    """

    def __init__(self, advice: str) -> None:
        """Keep `advice`. Any thread."""
        super().__init__(advice)
        self.advice = f": {advice}" if advice else ""


def cast(array: Array, tensor: TensorSpec) -> tuple[Array, dict[int, str]]:
    """Return `array`, whose first axis is the row, with the dtype of `tensor`.

    Returns:
        The array, and for each row that cannot be cast what it holds; such a row means nothing.

    Raises:
        CannotCast: no array of that dtype can be cast.

    Any thread.
    """
    if array.dtype == tensor.datatype.numpy and not array.dtype.hasobject:
        return array, {}
    # To NumPy an empty list is float64. Where there are no elements, none changes its meaning.
    if not array.size:
        return np.empty(array.shape, tensor.datatype.numpy), {}
    if tensor.datatype.name == "BYTES":
        return texts(array)
    return _numbers(_plain(array), tensor)


def _numbers(array: Array, tensor: TensorSpec) -> tuple[Array, dict[int, str]]:
    """Return numbers with the dtype of `tensor`, and the rows of others; raises as `cast`."""
    source, target = _kind(array.dtype), _kind(tensor.datatype.numpy)
    if tensor.datatype.name == "BF16":
        target = "f"
    if target == "f" and source in "fib":
        return _floats(array, tensor)
    if target == "i" and source in "ib":
        return _integers(array, tensor.datatype.numpy)
    if source == "O" and all(isinstance(value, int) for value in array.flat):
        raise CannotCast("no dtype has whole numbers of more than 64 bits: return texts, as BYTES")
    raise CannotCast(_MENDS.get((source, target)) or _MENDS.get((source, ""), ""))


def _kind(dtype: np.dtype[Any]) -> str:
    """Return the kind of a dtype, `i` for whole numbers with and without a sign. Any thread."""
    return "i" if dtype.kind == "u" else dtype.kind


def _plain(array: Array) -> Array:
    """Return an array of objects that are all numbers as an array of numbers.

    So is one of the dtype bfloat16 that other libraries have. Other arrays stay as they are.

    Any thread.
    """
    if array.dtype.name == "bfloat16":
        return array.astype("<f4")
    if not array.dtype.hasobject:
        return array
    values = array.ravel().tolist()
    kinds = set(map(type, values))
    if not all(issubclass(kind, bool | int | float | np.number | np.bool_) for kind in kinds):
        return array
    # Integers beyond 64 bits stay objects.
    return numbers_of(values).reshape(array.shape)


def numbers_of(values: Any) -> Array:
    """Return Python numbers, or lists of such, as an array.

    Raises:
        CannotCast: a whole number among floats loses digits.
        ValueError: lists have unequal lengths.

    Any thread.
    """
    array = np.asarray(values)
    if array is values or array.dtype != np.float64 or not (np.abs(array) >= _EXACT_FLOAT).any():
        return array
    objects = np.array(values, object)
    flat = objects.ravel().tolist()
    if all(isinstance(value, int | np.integer) for value in flat):
        # Of whole numbers with and without a sign NumPy makes floats.
        with suppress(OverflowError):
            return objects.astype(np.uint64 if min(flat) >= 0 else np.int64)
        return objects
    if all(not isinstance(value, int) or int(float(value)) == value for value in flat):
        return array
    raise CannotCast(
        "whole numbers of more than 53 bits lose digits among floats: return them as an output of "
        "their own, of INT64"
    )


def _floats(array: Array, tensor: TensorSpec) -> tuple[Array, dict[int, str]]:
    """Return numbers as floats; a number that became infinite does not fit. Any thread."""
    with np.errstate(over="ignore"):
        if tensor.datatype.name == "BF16":
            numbers = array.astype("<f4")
            made = from_float32(numbers)
            infinite = (made & 0x7FFF) == 0x7F80
        else:
            made = array.astype(tensor.datatype.numpy)
            infinite = np.isinf(made)
            if array.dtype.kind in "iu" and array.dtype.itemsize == made.dtype.itemsize == 8:
                return made, _wrong_rows(array, _loses_digits(array, made))
    if not infinite.any():
        return made, {}
    return made, _wrong_rows(array, infinite & np.isfinite(array))


def _loses_digits(array: Array, made: Array) -> Array:
    """Return which whole numbers are others in `made`, an array of float64. Any thread."""
    if not (np.abs(made) >= _EXACT_FLOAT).any():
        return np.zeros(array.shape, bool)
    exact = [int(number) for number in made.ravel().tolist()]
    differs: Array = np.array(exact, object).reshape(array.shape) != array
    return differs


def _integers(array: Array, dtype: np.dtype[Any]) -> tuple[Array, dict[int, str]]:
    """Return whole numbers in another dtype; those beyond its range do not fit. Any thread."""
    made = array.astype(dtype)
    if array.dtype.kind == "b" or not array.size:
        return made, {}
    own, limits = np.iinfo(array.dtype), np.iinfo(dtype)
    # NumPy refuses to compare an array with a number that the array's dtype cannot hold.
    least, most = max(int(limits.min), int(own.min)), min(int(limits.max), int(own.max))
    if array.min() >= least and array.max() <= most:
        return made, {}
    return made, _wrong_rows(array, (array < least) | (array > most))


def _wrong_rows(array: Array, wrong: Array) -> dict[int, str]:
    """Return the first wrong value of each row that has one, as text. Any thread."""
    rows = np.flatnonzero(wrong.reshape(len(array), -1).any(axis=1)).tolist()
    return {row: brief(array[row][wrong[row]].ravel()[0].item(), 60) for row in rows}


def texts(array: Array) -> tuple[Array, dict[int, str]]:
    """Return texts as an array of `bytes`, and what the rows hold that are no texts.

    Raises:
        CannotCast: the array holds neither texts nor objects.

    Any thread.
    """
    if array.dtype.kind not in "OSUT":
        raise CannotCast("write `str(value).encode()` in the model, or declare a numeric dtype")
    # Piece by piece: one look at four million texts keeps the interpreter lock for 80 ms.
    if array.dtype.hasobject and all(_BYTES.issuperset(map(type, few)) for few in pieces_of(array)):
        return array, {}
    values = array.ravel().tolist()
    wrong: dict[int, str] = {}
    elements = len(values) // max(len(array), 1)
    for index, value in enumerate(values):
        encoded = _encoded(value)
        if encoded is None:
            wrong.setdefault(index // elements, _no_text(value))
        values[index] = encoded or b""
    made = np.empty(len(values), object)
    made[:] = values
    return made.reshape(array.shape), wrong


def _no_text(value: Any) -> str:
    """Return in words what `value`, which is no text, is. Any thread."""
    if isinstance(value, str | int | float | list | tuple | dict) or value is None:
        return f"{type(value).__name__} {brief(value, 60)}"
    return f"{brief(value, 60)}: return texts, such as `str(value)` of each"


def _encoded(value: Any) -> bytes | None:
    """Return a text as bytes; None if it is no text, or text without UTF-8. Any thread."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            return None
    return bytes(value) if isinstance(value, bytearray | memoryview) else None
