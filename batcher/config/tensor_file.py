"""What `model.yaml` says of any tensor, and how rows of different lengths are padded."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from batcher.config.default_values import default_row
from batcher.config.reading import Integer
from batcher.core.spec import DATATYPES, Datatype, TensorSpec, datatype

Axis = Annotated[Integer, Field(ge=-1)]


def same_elements(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether rows of both shapes have as many elements, whatever a free axis holds."""
    sizes = [prod(size for size in shape if size >= 0) for shape in (one, other)]
    return sizes[0] == sizes[1] > 0 and list(one).count(-1) == list(other).count(-1) <= 1


class FileSection(BaseModel):
    """A part of `model.yaml`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True
    )


class TensorFile(FileSection):
    """A tensor: its name, its dtype, and the shape of one row.

    Attributes:
        name: name that clients use.
        dtype: datatype of its elements.
        shape: shape of one row; -1 for an axis of any size.
        graph_name: format `onnx`: its name in the graph, where that is another one.
        batch_axis: format `onnx`: the axis of the graph's tensor that counts the rows of a batch,
            0 the first; needed where the shapes do not tell.
        reshape: formats that are files of a graph: shape of a row in the model itself, where that
            is another than `shape`, which clients see. Both have as many elements.
    """

    name: Annotated[str, Field(min_length=1)]
    dtype: Datatype
    shape: tuple[Axis, ...]
    graph_name: Annotated[str | None, Field(min_length=1)] = None
    batch_axis: Annotated[Integer | None, Field(ge=0)] = None
    reshape: tuple[Axis, ...] | None = None

    @model_validator(mode="after")
    def _as_many_elements(self) -> TensorFile:
        if self.reshape is not None and not same_elements(self.shape, self.reshape):
            raise ValueError(
                f"a reshape with as many elements as shape {list(self.shape)}, and at most one "
                f"axis of -1 in both, not {list(self.reshape)}"
            )
        return self

    @field_validator("dtype", mode="before")
    @classmethod
    def _known_datatype(cls, value: object) -> Datatype:
        try:
            return datatype(str(value))
        except KeyError as err:
            raise ValueError(f"one of {', '.join(DATATYPES)}") from err


_BESIDE_PAD = {"pad_to_multiple_of", "pad_sizes", "warmup_lengths", "mask", "lengths"}


class PaddedFile(TensorFile):
    """A tensor whose free axis may be padded, so that rows of all lengths share batches.

    Attributes:
        pad: what stands behind the end of a row that shares a batch with longer rows; the shape
            has an axis of -1 then. Without it rows of different lengths share no batch.
        pad_to_multiple_of: the length of a padded batch is a multiple of that.
        pad_sizes: lengths of padded batches, for models that are compiled for some lengths.
        warmup_lengths: lengths that warm-up runs, beside that of its rows; without any, those of
            `pad_sizes`.
        mask: name of the input that tells the model where rows are padded: 1 for data, 0 for
            padding. Where a request leaves that input out, the server fills it.
        lengths: name of the input that tells the model how long each row is; filled likewise.
    """

    pad: Any = None
    pad_to_multiple_of: Annotated[Integer, Field(ge=1)] = 1
    pad_sizes: tuple[Annotated[Integer, Field(ge=1)], ...] = ()
    warmup_lengths: tuple[Annotated[Integer, Field(ge=1)], ...] = ()
    mask: Annotated[str | None, Field(min_length=1)] = None
    lengths: Annotated[str | None, Field(min_length=1)] = None

    @model_validator(mode="after")
    def _can_be_padded(self) -> PaddedFile:
        if self.pad is None:
            if not _BESIDE_PAD.isdisjoint(self.model_fields_set):
                raise ValueError(
                    "`pad` beside pad_to_multiple_of, pad_sizes, warmup_lengths, mask and lengths"
                )
            return self
        if -1 not in self.shape:
            raise ValueError(f"a shape with an axis of -1 for `pad`, not {list(self.shape)}")
        if list(self.pad_sizes) != sorted(set(self.pad_sizes)):
            raise ValueError("pad_sizes in ascending order")
        if self.pad_sizes and self.pad_to_multiple_of > 1:
            raise ValueError("either pad_sizes or pad_to_multiple_of")
        try:
            default_row(self.pad, self.dtype, ())
        except ValueError as err:
            raise ValueError(f"a `pad` that is one value of {self.dtype.name}") from err
        return self

    @property
    def pad_value(self) -> Any:
        """The padding as an element of an array; None without padding."""
        return None if self.pad is None else default_row(self.pad, self.dtype, ())[()]


class PreparedFile(PaddedFile):
    """A tensor that `preprocess` makes, and whose rows are padded."""

    @model_validator(mode="after")
    def _is_padded(self) -> PreparedFile:
        if self.pad is None or self.mask or self.lengths:
            raise ValueError("`pad`, and neither `mask` nor `lengths`: preprocess makes those")
        return self

    def spec(self) -> TensorSpec:
        """Return the specification of the tensor."""
        return TensorSpec(
            self.name,
            self.dtype,
            self.shape,
            pad=self.pad_value,
            pad_to_multiple_of=self.pad_to_multiple_of,
            pad_sizes=self.pad_sizes,
            warmup_lengths=self.warmup_lengths,
        )


LENGTH_DTYPES = ("INT32", "INT64", "UINT32", "UINT64", "FP32", "FP64")
"""Dtypes of an input with lengths: others do not hold every length that a request may have."""


def fillers(inputs: Sequence[PaddedFile], key: str) -> dict[str, str]:
    """Return the inputs that `key`, `mask` or `lengths`, of `inputs` names, and of which each is.

    Raises:
        ValueError: there is no such input, or it cannot be filled; the message says what to write.
    """
    found: dict[str, str] = {}
    by_name = {tensor.name: tensor for tensor in inputs}
    for tensor in inputs:
        name = getattr(tensor, key)
        if name is None:
            continue
        filled = by_name.get(name)
        if filled is None or filled is tensor or name in found:
            raise ValueError(
                f"`{key}` of {tensor.name!r} to be another input of its own, which {name!r} is not"
            )
        check_filled(filled, key, tensor)
        if filled.dtype.name in ("BYTES", "BF16"):
            raise ValueError(f"input {name!r}, the {key} of {tensor.name!r}, to be of numbers")
        if key == "lengths" and filled.dtype.name not in LENGTH_DTYPES:
            expected = ", ".join(LENGTH_DTYPES)
            raise ValueError(f"one of {expected} for {name!r}, the lengths of {tensor.name!r}")
        found[name] = tensor.name
    return found


def check_filled(filled: PaddedFile, key: str, tensor: PaddedFile) -> None:
    """Check that `filled` can be what `key` says of `tensor`, its mask or its lengths.

    Raises:
        ValueError: it has another shape; the message says which was expected.
    """
    axes = tensor.shape.count(-1)
    if key == "mask":
        fits, shape = filled.shape.count(-1) == axes, _axes_text(axes)
    else:
        shapes = [(), (1,)] if axes == 1 else [(axes,)]
        fits, shape = filled.shape in shapes, " or ".join(str(list(each)) for each in shapes)
    if not fits:
        raise ValueError(f"input {filled.name!r}, the {key} of {tensor.name!r}, with shape {shape}")


def check_axes(tensors: Sequence[TensorFile]) -> None:
    """Check that `tensors`, which are padded or cut alike, have as many free axes.

    Raises:
        ValueError: one of them has more or fewer; the message says how many were expected.
    """
    for tensor in tensors[1:]:
        axes = tensors[0].shape.count(-1)
        if tensor.shape.count(-1) != axes:
            raise ValueError(
                f"{tensor.name!r} with {_axes_text(axes)}, as {tensors[0].name!r} has, which is "
                f"padded; not {list(tensor.shape)}"
            )


def _axes_text(axes: int) -> str:
    return "one axis of -1" if axes == 1 else f"{axes} axes of -1"
