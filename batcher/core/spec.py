"""What a model takes and gives.

Tensor specifications, the one dtype table, and the checks against them.

Datatypes carry the names of the Open Inference Protocol (`FP32`); the usual names (`float32`) are
accepted wherever an operator writes one. BF16 travels as 16-bit integers, since numpy has no such
type, and is re-viewed in `models/`. BYTES is an object array of `bytes` without a fixed item size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from batcher.errors import InvalidInput, ModelContractError

Array = np.ndarray[Any, np.dtype[Any]]

"""Any numpy array; which dtypes and shapes are meant is said where it is used."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the dtype table.

    Attributes:
        name: the Open Inference Protocol's name.
        alias: the name numpy and PyTorch use.
        numpy: the little-endian numpy dtype that carries it.
    """

    name: str
    alias: str
    numpy: np.dtype[Any]


DATATYPES: dict[str, Datatype] = {
    row.name: row
    for row in (
        Datatype("BOOL", "bool", np.dtype("?")),
        Datatype("UINT8", "uint8", np.dtype("<u1")),
        Datatype("UINT16", "uint16", np.dtype("<u2")),
        Datatype("UINT32", "uint32", np.dtype("<u4")),
        Datatype("UINT64", "uint64", np.dtype("<u8")),
        Datatype("INT8", "int8", np.dtype("<i1")),
        Datatype("INT16", "int16", np.dtype("<i2")),
        Datatype("INT32", "int32", np.dtype("<i4")),
        Datatype("INT64", "int64", np.dtype("<i8")),
        Datatype("FP16", "float16", np.dtype("<f2")),
        Datatype("FP32", "float32", np.dtype("<f4")),
        Datatype("FP64", "float64", np.dtype("<f8")),
        Datatype("BF16", "bfloat16", np.dtype("<u2")),
        Datatype("BYTES", "bytes", np.dtype("O")),
    )
}

_BY_ALIAS = {row.alias: row for row in DATATYPES.values()}


def datatype(name: str) -> Datatype:
    """Return the row of the dtype table called `name`, in either naming.

    Raises:
        KeyError: no such datatype; the message lists those there are.
    """
    found = DATATYPES.get(name.upper()) or _BY_ALIAS.get(name.lower())
    if found is None:
        raise KeyError(f"expected one of {', '.join(DATATYPES)}; got {name!r}")
    return found


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How a picture becomes one row of an input.

    Resize, colour mode, then (pixel * scale - mean) / std.

    Attributes:
        mode: `L` (grey) or `RGB`.
        height: rows of pixels after resizing.
        width: columns of pixels after resizing.
        channels_first: whether the row is (channel, height, width) rather than (height, width,
            channel).
        scale: factor for a pixel of 0..255.
        mean: subtracted, one value a channel.
        std: divided by, one value a channel.
    """

    mode: str
    height: int
    width: int
    channels_first: bool = True
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of the classes along an output's last axis.

    Attributes:
        names: one name a class, in the order of the scores.
        logits: whether a softmax still has to turn the scores into probabilities.
    """

    names: tuple[str, ...]
    logits: bool = False


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor of a model.

    Attributes:
        name: its name.
        datatype: its row of the dtype table.
        shape: the shape of ONE row, without the batch axis; -1 where free.
        image: how pictures become rows of it, if they do.
        labels: the classes of its last axis, if it holds scores.
        warmup_shape: sizes that stand for the free axes during warm-up.
        batch_shape: the shape of many rows, the batch axis free.
        row_bytes: bytes of a row over its fixed axes alone.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    image: ImageSpec | None = None
    labels: Labels | None = None
    warmup_shape: tuple[int, ...] | None = None
    batch_shape: tuple[int, ...] = field(init=False)
    row_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Work out what every request asks for."""
        object.__setattr__(self, "batch_shape", (-1, *self.shape))
        object.__setattr__(self, "row_bytes", self.fixed_size * self.datatype.numpy.itemsize)

    @property
    def free_axes(self) -> int:
        """How many axes of a row have no fixed size."""
        return self.shape.count(-1)

    @property
    def fixed_size(self) -> int:
        """Elements of a row over its fixed axes alone."""
        return prod(size for size in self.shape if size >= 0)

    def admits(self, array: Array) -> bool:
        """Whether `array` has this dtype and, behind the batch axis, this shape."""
        shape = array.shape
        return (
            array.dtype == self.datatype.numpy
            and len(shape) == len(self.shape) + 1
            and (
                shape[1:] == self.shape
                or all(want in (-1, have) for want, have in zip(self.shape, shape[1:], strict=True))
            )
        )

    def describe(self) -> str:
        """Return datatype and shape with the free batch axis, as `FP32[-1,1,8,8]`."""
        return f"{self.datatype.name}{shape_text(self.batch_shape)}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's name, version and tensors.

    Attributes:
        name: the model's name.
        version: its version, a decimal number as text.
        inputs: what it takes, in the order of its positional arguments.
        outputs: what it gives, in the order of its results.
        platform: the format it was loaded from, for metadata.
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    platform: str = "python"


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as `[2,3]`."""
    return f"[{','.join(map(str, shape))}]"


def describe_array(array: Array) -> str:
    """Write dtype and shape of what came as `float32[1,64]`."""
    return f"{array.dtype.name if array.dtype != object else 'bytes'}{shape_text(array.shape)}"


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Array]) -> int:
    """Check that `inputs` are the model's inputs and return their number of rows.

    Args:
        spec: the model's specification.
        inputs: name to array of shape (rows, *row shape).

    Raises:
        InvalidInput: a name, dtype, shape or row count is wrong; the message says what was expected
            and what came.
    """
    rows = -1
    if len(inputs) != len(spec.inputs):
        raise InvalidInput(_wrong_names(spec, inputs))
    for tensor in spec.inputs:
        array = inputs.get(tensor.name)
        if array is None:
            raise InvalidInput(_wrong_names(spec, inputs))
        if not tensor.admits(array):
            raise InvalidInput(
                f"input {tensor.name!r}: expected {tensor.describe()}; got {describe_array(array)}",
            )
        if rows not in (-1, len(array)):
            raise InvalidInput(
                f"input {tensor.name!r}: expected {rows} rows, as in {spec.inputs[0].name!r}; got "
                f"{len(array)}",
            )
        rows = len(array)
    if rows < 1:
        raise InvalidInput(f"expected at least 1 row; got {max(rows, 0)}")
    return rows


def check_outputs(spec: ModelSpec, outputs: Mapping[str, Array], rows: int) -> None:
    """Check that a model's `outputs` keep the promise of its specification.

    Args:
        spec: the model's specification.
        outputs: name to array, first axis the row.
        rows: how many rows the model was given.

    Raises:
        ModelContractError: an output is missing, has another number of rows, another dtype or
            shape, or BYTES that are none.
    """
    for tensor in spec.outputs:
        array = outputs.get(tensor.name)
        if array is None:
            raise ModelContractError(
                f"model {spec.name!r}: expected output {tensor.name!r}; got "
                f"{', '.join(map(repr, outputs)) or 'none'}",
            )
        if array.ndim == 0 or len(array) != rows:
            got = len(array) if array.ndim else "a scalar"
            raise ModelContractError(
                f"model {spec.name!r}: {rows} rows in, {got} rows out in output {tensor.name!r}"
            )
        if not tensor.admits(array):
            raise ModelContractError(
                f"model {spec.name!r}: output {tensor.name!r}: expected {tensor.describe()}; got "
                f"{describe_array(array)}",
            )
        if array.dtype.hasobject:
            check_objects(array, f"model {spec.name!r}: output {tensor.name!r}")


def check_objects(array: Array, place: str) -> None:
    """Check that the elements of `array`, an array of objects, are what BYTES are: `bytes`.

    Text is not taken for its UTF-8: what a model means by text it says itself, with `.encode()`, as
    it is given text as bytes.

    Raises:
        ModelContractError: one is something else; the message begins with `place`.
    """
    wrong = sorted(
        {kind.__name__ for kind in set(map(type, array.flat)) if not issubclass(kind, bytes)}
    )
    if wrong:
        raise ModelContractError(
            f"{place}: expected elements that are bytes; got {', '.join(wrong[:3])}"
        )


def _wrong_names(spec: ModelSpec, inputs: Mapping[str, Array]) -> str:
    expected = ", ".join(repr(tensor.name) for tensor in spec.inputs)
    got = ", ".join(repr(name) for name in inputs) or "none"
    return f"model {spec.name!r}: expected inputs {expected}; got {got}"


def nbytes_of(arrays: Mapping[str, Array]) -> int:
    """Return the bytes of all `arrays`; of object arrays those of their elements."""
    total = 0
    for array in arrays.values():
        total += array.nbytes  # of an object array the references
        if array.dtype.hasobject:
            total += sum(map(len, array.flat))
    return total
