"""Rows of unequal lengths in one batch: the shorter rows are padded to the length of the longest.

Texts, sounds and series come in any length. The axis of the length is free (-1) in `model.yaml`,
and `pad: 0` on that input says what stands behind the end of a shorter row:

    three requests      [5, 9]   [7]   [3, 3, 8]         lengths 2, 1 and 3
    the batch           [[5, 9, 0], [7, 0, 0], [3, 3, 8]]
    its mask            [[1, 1, 0], [1, 0, 0], [1, 1, 1]]

A request has one length: several inputs may be padded, and all of them have that length. Requests
may share a batch if they are equal in all but the length (`RaggedGroup`). An output whose axis
follows the length is cut again, so that a request never sees the padding of its neighbours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from batcher.core.ragged import is_ragged, own_rows
from batcher.core.spec import Array, ModelSpec, shape_text
from batcher.errors import InvalidInput, ModelContractError


class RaggedGroup(NamedTuple):
    """What requests share that may be padded to one length.

    Attributes:
        padding: how the model's rows are padded.
        shapes: names, dtypes and shapes of the inputs; -1 stands for the length.
        width: elements of a row for each unit of length, in the first input that is padded.
        length: length of a batch, padding included; 0 for the group as a whole.
    """

    padding: Padding
    shapes: Hashable
    width: int
    length: int = 0

    @property
    def elements(self) -> int:
        """Elements of a padded row; 0 for the group as a whole."""
        return self.width * self.length

    def own_elements(self, inputs: Mapping[str, Array]) -> int:
        """Return the elements of a row of a request with `inputs`, without padding."""
        return self.width * self.padding.length_of(inputs)

    def padded_to(self, length: int) -> RaggedGroup:
        """Return the group of a batch whose longest row has `length`."""
        return RaggedGroup(self.padding, self.shapes, self.width, self.padding.padded(length))


class Padding:
    """How rows of one model are padded, and how its outputs are cut again.

    Attributes:
        axes: for each input that is padded, its axis of the length, counted in the batch.
        values: for each of these inputs, what stands behind the end of a row.
        output_axes: for each output that is cut, its axis of the length, counted in the batch.
        warmup_lengths: lengths of batches that warm-up runs, beside that of its rows.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Pad what `spec`, which has an input with `pad`, says."""
        tensors = [tensor for tensor in (*spec.inputs, *spec.prepared) if tensor.pad is not None]
        first = tensors[0]
        self.axes = {tensor.name: tensor.shape.index(-1) + 1 for tensor in tensors}
        self.values = {tensor.name: tensor.pad for tensor in tensors}
        self.output_axes = {
            tensor.name: tensor.shape.index(-1) + 1 for tensor in spec.outputs if tensor.unpads
        }
        self._first = first.name
        self._multiple = first.pad_to_multiple_of
        self._sizes = first.pad_sizes
        self._lengths_inputs = [tensor.name for tensor in spec.inputs if tensor.lengths_of]
        lengths = first.warmup_lengths or first.pad_sizes
        self.warmup_lengths = sorted({self.padded(length) for length in lengths})

    def padded(self, length: int) -> int:
        """Return the length that rows of at most `length` are padded to."""
        if self._sizes:
            index = bisect_left(self._sizes, length)
            # Beyond the largest size each length is its own: the model says what it takes.
            return self._sizes[index] if index < len(self._sizes) else length
        return -(-length // self._multiple) * self._multiple

    def group_of(self, inputs: Mapping[str, Array]) -> Hashable:
        """Return what requests must share with `inputs` to share a batch.

        Raises:
            InvalidInput: two inputs that are padded have two lengths.
        """
        shapes: list[tuple[str, str, tuple[int, ...]]] = []
        length, whose, width = -1, "", 0
        for name in sorted(inputs):
            array = inputs[name]
            axis, shape = self.axes.get(name), tuple(array.shape[1:])
            if axis is not None and axis < array.ndim:
                own = array.shape[axis]
                if length not in (-1, own):
                    raise InvalidInput(
                        f"input {name!r}: expected the length of {whose!r}, {length}; got {own}"
                    )
                shape = (*shape[: axis - 1], -1, *shape[axis:])
                if length < 0 or name == self._first:
                    width = abs(prod(shape))
                length, whose = own, name
            shapes.append((name, array.dtype.str, shape))
        if length < 0:
            return tuple(shapes)
        return RaggedGroup(self, tuple(shapes), width)

    def length_of(self, inputs: Mapping[str, Array]) -> int:
        """Return the length of a request of a `RaggedGroup` with `inputs`."""
        for name, axis in self.axes.items():
            array = inputs.get(name)
            if array is not None and axis < array.ndim:
                return int(array.shape[axis])
        raise ValueError("expected an input that is padded")

    def padded_shape(self, name: str, shape: tuple[int, ...], length: int) -> tuple[int, ...]:
        """Return the shape of a row of the input `name` in a batch of `length`."""
        axis = self.axes.get(name)
        if axis is None or axis > len(shape):
            return shape
        return (*shape[: axis - 1], length, *shape[axis:])

    def fill(self, buffer: Array, name: str, arrays: Sequence[Array]) -> None:
        """Write `arrays` of the input `name` into `buffer`, one behind the other, and pad them."""
        axis = self.axes[name]
        buffer.fill(self.values[name])
        start = 0
        for array in arrays:
            stop = start + len(array)
            buffer[(slice(start, stop), *_ends(axis, array.shape[axis]))] = array
            start = stop

    def stretched(self, inputs: Mapping[str, Array], length: int = 0) -> tuple[Rows, int]:
        """Return rows made of `inputs` that have `length`, and the elements of each.

        What a row has is repeated, or cut. Length 0 stands for the length that a batch of `inputs`
        is padded to. The elements are 0 where no input is padded.
        """
        rows, group = dict(inputs), self.group_of(inputs)
        if not isinstance(group, RaggedGroup):
            return rows, 0
        own = self.length_of(inputs)
        group = group.padded_to(length or own)
        for name, axis in self.axes.items():
            if name in rows and axis < rows[name].ndim and own:
                rows[name] = rows[name].take(np.arange(group.length) % own, axis)
        for name in self._lengths_inputs:
            if name in rows:
                rows[name] = np.full_like(rows[name], group.length)
        return rows, group.elements

    def even_rows(self, arrays: Mapping[str, Array]) -> Rows:
        """Return `arrays` with ragged rows padded to the longest of them."""
        return {
            name: self._evened(name, array) if is_ragged(array) else array
            for name, array in arrays.items()
        }

    def _evened(self, name: str, rows: Array) -> Array:
        axis = self.axes[name]
        length = self.padded(max([row.shape[axis - 1] for row in rows]))
        shape = self.padded_shape(name, rows[0].shape, length)
        even: Array = np.empty((len(rows), *shape), rows[0].dtype)
        self.fill(even, name, [row[np.newaxis] for row in rows])
        return even

    def check_outputs(self, outputs: Mapping[str, Array], length: int) -> None:
        """Check that `outputs` of a batch of `length` can be cut.

        Raises:
            ModelContractError: the axis of the length of an output has another size.
        """
        for name, axis in self.output_axes.items():
            array = outputs.get(name)
            if array is not None and (axis >= array.ndim or array.shape[axis] != length):
                raise ModelContractError(
                    f"output {name!r}: `unpad` expects the length of the batch, {length}, on axis "
                    f"{axis}; got shape {shape_text(array.shape)}"
                )

    def own_rows(self, outputs: Mapping[str, Array], start: int, stop: int, length: int) -> Rows:
        """Return the rows from `start` up to, not including, `stop`, cut to `length`."""
        own: Rows = {}
        for name, array in outputs.items():
            axis = self.output_axes.get(name)
            if axis is None:
                own[name] = own_rows(array, start, stop)
            else:
                cut = array[(slice(start, stop), *_ends(axis, length))]
                own[name] = np.ascontiguousarray(cut)
        return own


Rows = dict[str, Array]


def even_rows(arrays: Mapping[str, Array], spec: ModelSpec) -> Rows:
    """Return `arrays`, which a model `spec` takes, with ragged rows padded to the longest."""
    if not any(map(is_ragged, arrays.values())):
        return dict(arrays)
    return Padding(spec).even_rows(arrays)


def _ends(axis: int, length: int) -> list[slice]:
    """Return slices of the axes 1 to `axis`, all whole but the last, which ends at `length`."""
    return [slice(None)] * (axis - 1) + [slice(length)]
