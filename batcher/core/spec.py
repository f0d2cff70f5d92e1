"""The tensors that a model takes and gives: their specification, the datatypes, and the checks.

A datatype has two names: `FP32` in the Open Inference Protocol, `float32` in numpy and PyTorch.
Answers carry the protocol's name; an operator may write either name.

Two datatypes are not numpy's own:

- BF16 (bfloat16) is missing in numpy. Its bytes travel as 16-bit integers, and `models/` views the
  integers as bfloat16 again.
- BYTES is an array of Python objects, each of them `bytes` of any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from batcher.core.element_sizes import pieces_of
from batcher.core.error_text import brief_names
from batcher.errors import InvalidInput, ModelContractError

Array = np.ndarray[Any, np.dtype[Any]]
"""Any numpy array; each use says which dtypes and shapes are meant."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype: a row of the table `DATATYPES`.

    Attributes:
        name: name in the Open Inference Protocol.
        alias: name in numpy and PyTorch.
        numpy: the little-endian numpy dtype of its arrays.
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

"""Every datatype by its name in the Open Inference Protocol."""

FLOATS = ("FP16", "FP32", "FP64", "BF16")
"""The datatypes of floats, which alone can be NaN."""

_BY_ALIAS = {row.alias: row for row in DATATYPES.values()}
NAMES = {row.numpy: row.name for row in DATATYPES.values() if row.name != "BF16"}
"""The name of a datatype by its numpy dtype; BF16, which numpy does not have, is among none."""


def datatype(name: str) -> Datatype:
    """Return the datatype called `name`, which is one of its two names in any case.

    Raises:
        KeyError: no datatype has that name; the message lists all datatypes.
    """
    found = DATATYPES.get(name.upper()) or _BY_ALIAS.get(name.lower())
    if found is None:
        raise KeyError(f"expected one of {', '.join(DATATYPES)}; got {name!r}")
    return found


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How a picture becomes one row of an input.

    The picture is resized and converted to `mode`; then each value is normalised:

        value = (pixel * scale - mean) / std

    With scale 1/255, mean 0.5 and std 0.5, a pixel of 255 becomes 1.0 and a pixel of 0 becomes
    -1.0.

    Attributes:
        mode: `L` (grey) or `RGB`.
        height: rows of pixels after resizing.
        width: columns of pixels after resizing.
        channels_first: whether a row has the shape (channel, height, width), not (height, width,
            channel).
        scale: factor of the formula; a pixel is 0..255.
        mean: mean of the formula, one value for all channels or one a channel.
        std: divisor of the formula, one value for all channels or one a channel.
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
        logits: whether the scores are logits, which a softmax turns into probabilities.
        is_declared: whether the model says what the scores are. Without it they are called
            probabilities where they look like probabilities.
    """

    names: tuple[str, ...]
    logits: bool = False
    is_declared: bool = True


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor of a model.

    Attributes:
        name: name of the tensor.
        datatype: datatype of its elements.
        shape: shape of ONE row, without the batch axis; -1 for an axis of any size.
        image: how a picture becomes a row; None if pictures are not accepted.
        labels: names of the classes, if the last axis holds scores.
        warmup_shape: shape of a row during warm-up; None takes `shape`.
        is_ragged: whether the rows of an output may differ in the sizes of their free axes.
        missing_is_nan: whether a value that is missing in a text body (`null` in JSON, an empty
            cell in CSV) is NaN, and of BYTES an empty text; else such a body is refused.
        is_optional: whether a request may leave the input out.
        default: the row of an optional input in a request without that input; None if the model
            then does not get the input.
        pad: what stands behind the end of a row that shares a batch with longer rows; None if rows
            of different lengths share no batch.
        pad_to_multiple_of: the length of a padded batch is a multiple of that.
        pad_sizes: lengths of padded batches, ascending; empty for any length.
        warmup_lengths: lengths of padded batches that warm-up runs, beside that of its rows.
        mask_of: name of the padded input whose mask this input is, where a request leaves it out:
            1 for data, 0 for padding. Empty if this input is no mask.
        lengths_of: name of the padded input whose lengths this input holds, likewise.
        unpads: whether rows of an output are cut to the length of the padded inputs of their
            request.
        batch_shape: shape of many rows: -1, then `shape`.
        row_bytes: bytes of a row, counting the fixed axes alone. An FP32 tensor of shape (-1, 8)
            has 32.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    image: ImageSpec | None = None
    labels: Labels | None = None
    warmup_shape: tuple[int, ...] | None = None
    is_ragged: bool = False
    missing_is_nan: bool = False
    is_optional: bool = False
    default: Array | None = field(default=None, compare=False)
    pad: Any = None
    pad_to_multiple_of: int = 1
    pad_sizes: tuple[int, ...] = ()
    warmup_lengths: tuple[int, ...] = ()
    mask_of: str = ""
    lengths_of: str = ""
    unpads: bool = False
    batch_shape: tuple[int, ...] = field(init=False)
    row_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what is read for every request."""
        object.__setattr__(self, "batch_shape", (-1, *self.shape))
        object.__setattr__(self, "row_bytes", self.fixed_size * self.datatype.numpy.itemsize)

    @property
    def free_axes(self) -> int:
        """How many axes of a row may have any size."""
        return self.shape.count(-1)

    @property
    def may_lack(self) -> bool:
        """Whether the model may get a batch without this input."""
        return self.is_optional and self.default is None and not self.is_filled

    @property
    def is_filled(self) -> bool:
        """Whether the server fills the input where a request leaves it out: a mask, or lengths."""
        return bool(self.mask_of or self.lengths_of)

    @property
    def fixed_size(self) -> int:
        """Elements of a row, counting the fixed axes alone."""
        return prod(size for size in self.shape if size >= 0)

    @property
    def warmup_bytes(self) -> int:
        """Bytes of a row during warm-up; without a `warmup_shape` free axes count as 1."""
        if self.warmup_shape is None:
            return self.row_bytes
        return prod(self.warmup_shape) * self.datatype.numpy.itemsize

    def admits(self, array: Array) -> bool:
        """Whether `array`, of shape (rows, *row shape), has this dtype and this shape of a row."""
        shape = array.shape
        return (
            array.dtype == self.datatype.numpy
            and len(shape) == len(self.shape) + 1
            and (
                # The first comparison decides for nearly every request, and costs the least.
                shape[1:] == self.shape
                or all(want in (-1, have) for want, have in zip(self.shape, shape[1:], strict=True))
            )
        )

    def describe(self) -> str:
        """Return datatype and shape of many rows as text, such as `FP32[-1,1,8,8]`."""
        return f"{self.datatype.name}{shape_text(self.batch_shape)}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's name, version and tensors.

    Attributes:
        name: name of the model.
        version: version of the model, a decimal number as text.
        inputs: tensors that the model takes, in the order of its positional arguments.
        outputs: tensors that the model gives, in the order of its results.
        platform: format that the model is loaded from, for its metadata.
        prepared: of what `preprocess` makes, the tensors that are padded.
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    platform: str = "python"
    prepared: tuple[TensorSpec, ...] = ()

    @property
    def is_padded(self) -> bool:
        """Whether rows of different lengths share batches."""
        return any(tensor.pad is not None for tensor in (*self.inputs, *self.prepared))

    @property
    def required(self) -> tuple[TensorSpec, ...]:
        """The inputs that every request brings; at least one."""
        return tuple(tensor for tensor in self.inputs if not tensor.is_optional)

    @property
    def has_groups(self) -> bool:
        """Whether requests may differ in the names or the shapes of their inputs."""
        return any(tensor.free_axes or tensor.may_lack for tensor in self.inputs)

    def of_required(self) -> ModelSpec:
        """Return the specification without optional inputs, for bodies that hold no others."""
        return replace(self, inputs=self.required)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of all inputs and outputs; free axes count as in warm-up, or as 1."""
        return sum(tensor.warmup_bytes for tensor in (*self.inputs, *self.outputs))


def shape_text(shape: tuple[int, ...]) -> str:
    """Return `shape` as text, such as `[2,3]`."""
    return f"[{','.join(map(str, shape))}]"


def dtype_text(dtype: np.dtype[Any]) -> str:
    """Return the datatype of arrays of `dtype`, as `FP32`; numpy's name where none is known."""
    if dtype.kind in "OUS":
        return "BYTES"
    return NAMES.get(dtype.newbyteorder("<"), str(dtype))


def describe_array(array: Array) -> str:
    """Return dtype and shape of `array` as text, such as `FP32[1,64]`, spelt as in `model.yaml`."""
    return f"{dtype_text(array.dtype)}{shape_text(array.shape)}"


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Array]) -> int:
    """Check `inputs`, name to array of shape (rows, *row shape), and return the number of rows.

    Raises:
        InvalidInput: a name, dtype, shape or number of rows is wrong; the message says what was
            expected and what came.
    """
    rows = -1
    tensors = spec.inputs if len(inputs) == len(spec.inputs) else _without_optional(spec, inputs)
    for tensor in tensors:
        array = inputs.get(tensor.name)
        if array is None:
            raise wrong_names(spec, inputs)
        if not tensor.admits(array):
            raise InvalidInput(f"input {tensor.name!r}: {wrong_form(tensor, array)}")
        if rows not in (-1, len(array)):
            expected = f"expected {rows} rows, as in {tensors[0].name!r}"
            raise InvalidInput(f"input {tensor.name!r}: {expected}; got {len(array)}")
        rows = len(array)
    if rows < 1:
        raise InvalidInput(f"expected at least 1 row; got {max(rows, 0)}")
    return rows


def _without_optional(spec: ModelSpec, inputs: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """Return the tensors of `inputs`, where optional ones are left out. Raises InvalidInput."""
    tensors = tuple(
        tensor for tensor in spec.inputs if not tensor.is_optional or tensor.name in inputs
    )
    if len(tensors) != len(inputs):
        raise wrong_names(spec, inputs)
    return tensors


def has_rows(array: Array, rows: int) -> bool:
    """Return whether `array` has `rows` rows on its first axis; a scalar has no first axis."""
    return array.ndim > 0 and len(array) == rows


def rows_error(model: str, output: str, array: Array, rows: int) -> ModelContractError:
    """Return the error of a `model` that got `rows` rows and made `array`, which has others."""
    if array.dtype.hasobject and not array.ndim:
        kind = type(array.item()).__name__
        return ModelContractError(
            f"model {model!r}: output {output!r}: expected an array of {rows} rows; got {kind}"
        )
    got = len(array) if array.ndim else "a scalar"
    return ModelContractError(
        f"model {model!r}: {rows} rows in, {got} rows out in output {output!r}"
    )


def check_objects(array: Array, place: str) -> None:
    """Check that every element of `array`, an array of objects, is `bytes`.

    A `str` is refused rather than encoded: whoever makes inputs of text chooses the encoding, with
    `.encode()`.

    Raises:
        ModelContractError: an element is something else; the message begins with `place`.
    """
    kinds: set[type] = set()
    for piece in pieces_of(array):
        kinds.update(map(type, piece))
    wrong = sorted({kind.__name__ for kind in kinds if not issubclass(kind, bytes)})
    if wrong:
        mend = ": write `.encode()` at each text" if "str" in wrong else ""
        raise ModelContractError(
            f"{place}: expected elements that are bytes; got {', '.join(wrong[:3])}{mend}"
        )


def wrong_form(tensor: TensorSpec, array: Array) -> str:
    """Return in words that `array` is not what `tensor` says."""
    # Arrays of BF16 hold its bits, and have another dtype in numpy.
    is_dtype = array.dtype == tensor.datatype.numpy
    text = f"{tensor.datatype.name}{shape_text(array.shape)}" if is_dtype else describe_array(array)
    return f"expected {tensor.describe()}; got {text}"


def missing_advice(tensor: TensorSpec, is_missing: bool) -> str:
    """Return how an input takes a value that is missing, for the end of a message."""
    name = tensor.datatype.name
    if not is_missing or tensor.missing_is_nan:
        return ""
    if name == "BYTES":
        return ". Where a text is missing, send an empty one"
    if name not in FLOATS:
        return f". {name} has no value for what is missing: declare FP32, with `missing: nan`"
    return ". Where values may be missing, say `missing: nan` of the input in model.yaml"


def wrong_names(spec: ModelSpec, inputs: Mapping[str, object]) -> InvalidInput:
    """Return the error for `inputs` whose names are not those of the inputs of `spec`."""
    got = brief_names(inputs) or "none"
    return InvalidInput(f"model {spec.name!r}: expected inputs {input_names(spec)}; got {got}")


def input_names(spec: ModelSpec) -> str:
    """Return the names of the inputs as text, such as `'x', 'bias' (optional)`."""
    return ", ".join(
        f"{tensor.name!r}{' (optional)' if tensor.is_optional else ''}" for tensor in spec.inputs
    )
