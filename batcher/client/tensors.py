"""Arrays to binary tensors and back: little-endian, row-major.

The one dtype table of `batcher.core.spec` maps the array's own dtype to a datatype. Nothing is
converted behind the caller's back: a list of Python floats is FP64, and the server refuses it by
name if the model takes FP32.

numpy has no BF16. The caller wraps the bits, or floats, in `Bfloat16`, or passes an array of the
dtype that the ml_dtypes package adds to numpy; that dtype is known by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from batcher.codecs.content import Buffer
from batcher.codecs.formats.bfloat16 import from_float32
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.oip.elements import from_elements, to_elements
from batcher.core.spec import DATATYPES, Array

_BY_DTYPE = {row.numpy: row.name for row in DATATYPES.values() if row.name not in ("BF16", "BYTES")}
_BFLOAT16 = "bfloat16"
"""Name of the dtype that ml_dtypes adds."""


@dataclass(frozen=True, slots=True, eq=False)
class Bfloat16:
    """An input of datatype BF16.

    Attributes:
        values: the bits as an array of uint16, or floats; floats are rounded to the nearest BF16.
    """

    values: ArrayLike


class BinaryTensor(NamedTuple):
    """A tensor as the request carries it.

    Attributes:
        datatype: name in the dtype table.
        shape: sizes of the axes, rows first.
        data: the bytes, or an array that lies in memory as those bytes.
    """

    datatype: str
    shape: tuple[int, ...]
    data: Any

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data)


def to_tensor(name: str, value: ArrayLike | Bfloat16) -> BinaryTensor:
    """Return the input `name` as a tensor; a view of `value` where that needs no conversion.

    Raises:
        TypeError: the dtype of `value` has no datatype.
    """
    is_bfloat16 = isinstance(value, Bfloat16)
    array = np.asarray(value.values if isinstance(value, Bfloat16) else value)
    found = None if is_bfloat16 else _BY_DTYPE.get(array.dtype)
    if found is not None:  # first, since numpy takes long to name or to turn a dtype
        return BinaryTensor(found, array.shape, np.asarray(array, order="C"))
    if is_bfloat16 or array.dtype.name == _BFLOAT16:
        return BinaryTensor("BF16", array.shape, _laid_out(_bits(name, array)))
    # objects, bytes, and both kinds of numpy's text
    if array.dtype.kind in "OSUT":
        return BinaryTensor("BYTES", array.shape, _elements(name, array))
    found = _BY_DTYPE.get(np.dtype(array.dtype.newbyteorder("<").str))
    if found is None:
        raise TypeError(
            f"input {name!r}: expected an array of one of {', '.join(DATATYPES)}; got {array.dtype}"
        )
    return BinaryTensor(found, array.shape, _laid_out(array))


def from_tensor(name: str, datatype: str, shape: tuple[int, ...], data: Buffer) -> Array:
    """Return the output `name` as a read-only view of `data`.

    BYTES are an object array of `bytes` instead. BF16 are an array of uint16, the bits.

    Raises:
        DecodingError: the elements of BYTES do not fill `data`, or a boolean is neither 0 nor 1.
        KeyError: no datatype has that name.
        ValueError: `data` is longer or shorter than `shape` says.
    """
    if datatype == "BYTES":
        return from_elements(data, shape, name)
    dtype = DATATYPES[datatype].numpy
    if len(data) != prod(shape) * dtype.itemsize:
        raise ValueError(
            f"output {name!r}: expected {prod(shape) * dtype.itemsize} bytes; got {len(data)}"
        )
    array: Array = np.ndarray(shape, dtype, data) if data else np.empty(shape, dtype)
    return checked_booleans(array, name) if datatype == "BOOL" else array


def _bits(name: str, array: Array) -> Array:
    if array.dtype.name == _BFLOAT16:
        return array.view("u2")
    if array.dtype.kind == "f":
        return from_float32(array.astype("<f4"))
    if array.dtype != np.uint16:
        raise TypeError(
            f"input {name!r}: expected BF16 as bits of uint16, or floats; got {array.dtype}"
        )
    return array


def _elements(name: str, array: Array) -> bytes:
    elements = array.astype(object)
    for element in elements.ravel():
        if not isinstance(element, bytes | str):
            raise TypeError(
                f"input {name!r}: expected bytes or text in an array of objects; got "
                f"{type(element).__name__}"
            )
    return to_elements(elements)


def _laid_out(array: Array) -> Array:
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")
