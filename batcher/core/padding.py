"""Rows of unequal lengths in one batch: the shorter rows are padded to the length of the longest.

Texts, sounds and series come in any length. The axis of the length is free (-1) in `model.yaml`,
and `pad: 0` on that input says what stands behind the end of a shorter row:

    three requests      [5, 9]   [7]   [3, 3, 8]         lengths 2, 1 and 3
    the batch           [[5, 9, 0], [7, 0, 0], [3, 3, 8]]
    its mask            [[1, 1, 0], [1, 0, 0], [1, 1, 1]]

A request has one length: several inputs may be padded, and all of them have that length. Requests
may share a batch if they are equal in all but the length (`RaggedGroup`). An output whose axis
follows the length is cut again, so that a request never sees the padding of its neighbours.

Where the model has `pad_sizes`, a row longer than the largest of these is not padded. Such a row
shares batches with rows of its own length alone: the model may refuse that length, and no other row
should fail with it.

Pictures have two lengths, a height and a width, and other data may have more: one for each free
axis. Each axis is padded to the longest of the batch.

    two requests             2 x 5 and 4 x 3
    the batch                two rows of 4 x 5
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from batcher.core.error_text import brief
from batcher.core.ragged import is_ragged, own_rows, row_shapes
from batcher.core.spec import Array, ModelSpec, TensorSpec, shape_text
from batcher.errors import InvalidInput, ModelContractError

Lengths = tuple[int, ...]
"""Sizes of the free axes of a row, in their order."""


class RaggedGroup(NamedTuple):
    """What requests share that may be padded to the same lengths.

    Attributes:
        padding: how the model's rows are padded.
        shapes: names, dtypes and shapes of the inputs; -1 stands for a length that is padded.
        width: elements of a row whose lengths are all 1, in the first input that is padded.
        lengths: lengths of a batch, padding included; empty for the group as a whole.
    """

    padding: Padding
    shapes: Hashable
    width: int
    lengths: Lengths = ()

    @property
    def elements(self) -> int:
        """Elements of a padded row; 0 for the group as a whole."""
        return self.width * prod(self.lengths) if self.lengths else 0

    def own_elements(self, inputs: Mapping[str, Array]) -> int:
        """Return the elements of a row of a request with `inputs`, without padding."""
        return self.width * prod(self.padding.lengths_of(inputs))

    def padded_to(self, longest: Lengths) -> RaggedGroup:
        """Return the group of a batch whose rows have at most the lengths `longest`."""
        lengths = self.padding.padded_lengths(longest)
        return RaggedGroup(self.padding, self.shapes, self.width, lengths)


class Padding:
    """How rows of one model are padded, and how its outputs are cut again.

    Attributes:
        axes: for each input that is padded, its axes of the lengths, counted in the batch.
        values: for each of these inputs, what stands behind the end of a row.
        output_axes: for each output that is cut, likewise.
        warmup_lengths: lengths of batches that warm-up runs, beside that of its rows.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Pad what `spec`, which has an input with `pad`, says."""
        tensors = [tensor for tensor in (*spec.inputs, *spec.prepared) if tensor.pad is not None]
        first = tensors[0]
        self.axes = {tensor.name: _free_axes(tensor) for tensor in tensors}
        self.values = {tensor.name: tensor.pad for tensor in tensors}
        self.output_axes = {
            tensor.name: _free_axes(tensor) for tensor in spec.outputs if tensor.unpads
        }
        self._first = first.name
        self._multiple = first.pad_to_multiple_of
        self._sizes = first.pad_sizes
        self._lengths_inputs = [tensor.name for tensor in spec.inputs if tensor.lengths_of]
        lengths = first.warmup_lengths or first.pad_sizes
        self.warmup_lengths = sorted({self.padded(length) for length in lengths})

    def padded(self, length: int) -> int:
        """Return the length that an axis of at most `length` is padded to."""
        if self._sizes:
            index = bisect_left(self._sizes, length)
            # Beyond the largest size each length is its own: the model says what it takes.
            return self._sizes[index] if index < len(self._sizes) else length
        return -(-length // self._multiple) * self._multiple

    def padded_lengths(self, longest: Lengths) -> Lengths:
        """Return the lengths that rows of at most the lengths `longest` are padded to."""
        return tuple([self.padded(length) for length in longest])

    def group_of(self, inputs: Mapping[str, Array]) -> Hashable:
        """Return what requests must share with `inputs` to share a batch.

        Raises:
            InvalidInput: inputs that are padded differ in length, or rows are said to be longer.
        """
        shapes: list[tuple[str, str, tuple[int, ...]]] = []
        lengths: Lengths = ()
        whose, width = "", 0
        for name in sorted(inputs):
            array = inputs[name]
            axes, shape = self.axes.get(name), array.shape
            if axes is not None and axes[-1] < len(shape):
                own = _sizes(shape, axes)
                if lengths not in ((), own):
                    raise _unequal_lengths(name, own, whose, lengths)
                if not lengths or name == self._first:
                    width = prod(_with_sizes(shape, axes, [1] * len(axes))[1:])
                shape = _with_sizes(shape, axes, [self._shared(length) for length in own])
                lengths, whose = own, name
            shapes.append((name, array.dtype.str, shape[1:]))
        if not lengths:
            return tuple(shapes)
        self._check_lengths(inputs, whose, lengths)
        return RaggedGroup(self, tuple(shapes), width)

    def _check_lengths(self, inputs: Mapping[str, Array], whose: str, lengths: Lengths) -> None:
        """Check that no row is said to be longer than it is: a model would read what is behind."""
        for name in self._lengths_inputs:
            said = inputs.get(name)
            if said is not None and not ((said >= 0) & (said <= np.array(lengths))).all():
                raise InvalidInput(
                    f"input {name!r}: expected lengths of 0 to {', '.join(map(str, lengths))}, the "
                    f"size of the rows of {whose!r}; got {brief(said.tolist())}"
                )

    def _shared(self, length: int) -> int:
        """Return -1 for a length that is padded; else the length, which a whole batch must have."""
        return length if self._sizes and length > self._sizes[-1] else -1

    def lengths_of(self, inputs: Mapping[str, Array]) -> Lengths:
        """Return the lengths of a request of a `RaggedGroup` with `inputs`."""
        for name, axes in self.axes.items():
            array = inputs.get(name)
            if array is not None and axes[-1] < array.ndim:
                return _sizes(array.shape, axes)
        raise ValueError("expected an input that is padded")

    def padded_shape(self, name: str, shape: tuple[int, ...], lengths: Lengths) -> tuple[int, ...]:
        """Return the shape of a row of the input `name` in a batch of `lengths`."""
        axes = self.axes.get(name)
        if axes is None or axes[-1] > len(shape):
            return shape
        return _with_sizes((0, *shape), axes, lengths)[1:]

    def fill(self, buffer: Array, name: str, arrays: Sequence[Array]) -> None:
        """Write `arrays` of the input `name` into `buffer`, one behind the other, and pad them."""
        axes = self.axes[name]
        buffer.fill(self.values[name])
        start = 0
        for array in arrays:
            stop = start + len(array)
            buffer[(slice(start, stop), *_ends(axes, _sizes(array.shape, axes)))] = array
            start = stop

    def stretched(self, inputs: Mapping[str, Array], length: int = 0) -> tuple[Rows, int]:
        """Return rows made of `inputs` with each length `length`, and the elements of each row.

        What a row has is repeated, or cut. Length 0 stands for the lengths that a batch of `inputs`
        is padded to. The elements are 0 where no input is padded.
        """
        rows, group = dict(inputs), self.group_of(inputs)
        if not isinstance(group, RaggedGroup):
            return rows, 0
        own = self.lengths_of(inputs)
        group = group.padded_to((length,) * len(own) if length else own)
        return self._resized(rows, own, group.lengths), group.elements

    def uneven(self, inputs: Mapping[str, Array], lengths: Lengths, short: Lengths) -> Rows:
        """Return a batch of `lengths` of rows made of `inputs`, every second one of `short`."""
        rows = self._resized(dict(inputs), self.lengths_of(inputs), lengths)
        for name, axes in self.axes.items():
            if name in rows and axes[-1] < rows[name].ndim:
                own = rows[name][1::2]
                for axis, end in zip(axes, short, strict=True):
                    own[(slice(None),) * axis + (slice(end, None),)] = self.values[name]
        for name in self._lengths_inputs:
            if name in rows:
                rows[name][1::2] = lengths_rows(short, rows[name][1::2])
        return rows

    def other_lengths(self, lengths: Lengths) -> Lengths:
        """Return lengths of a batch, none of them in `lengths` and no two equal.

        Shorter ones, where there are such. Empty where rows are padded to too few lengths.
        """
        taken = [*lengths]
        for length in lengths:
            near = (each for each in self._near(length, len(taken)) if each not in taken)
            taken.append(next(near, 0))
        found = tuple(taken[len(lengths) :])
        return found if all(found) else ()

    def _near(self, length: int, count: int) -> list[int]:
        """Return lengths of a batch: shorter ones than `length` from 2 on, then `count` longer."""
        if self._sizes:
            index = bisect_left(self._sizes, length)
            return [*reversed(self._sizes[:index]), *self._sizes[index:]]
        # Halves and doubles: a model may take lengths of a certain multiple alone.
        halves = [length >> turn for turn in range(1, length.bit_length() - 1)]
        doubles = [length << turn for turn in range(1, count + 1)]
        return [self.padded(each) for each in (*halves, *doubles)]

    def _resized(self, rows: Rows, own: Lengths, lengths: Lengths) -> Rows:
        """Return `rows` of the lengths `own` with `lengths`, repeated or cut."""
        for name, axes in self.axes.items():
            if name not in rows or axes[-1] >= rows[name].ndim or not all(own):
                continue
            for axis, have, wanted in zip(axes, own, lengths, strict=True):
                rows[name] = rows[name].take(np.arange(wanted) % have, axis)
        for name in self._lengths_inputs:
            if name in rows:
                rows[name] = lengths_rows(lengths, rows[name])
        return rows

    def even_rows(self, arrays: Mapping[str, Array]) -> Rows:
        """Return `arrays` with ragged rows padded to the longest of them."""
        return {
            name: self._evened(name, array) if is_ragged(array) else array
            for name, array in arrays.items()
        }

    def _evened(self, name: str, rows: Array) -> Array:
        axes = self.axes[name]
        longest = longest_of([_sizes((0, *row.shape), axes) for row in rows])
        lengths = self.padded_lengths(longest)
        shape = self.padded_shape(name, rows[0].shape, lengths)
        even: Array = np.empty((len(rows), *shape), rows[0].dtype)
        self.fill(even, name, [row[np.newaxis] for row in rows])
        return even

    def check_outputs(self, outputs: Mapping[str, Array], lengths: Lengths) -> None:
        """Check that `outputs` of a batch of `lengths` can be cut.

        Raises:
            ModelContractError: an axis of a length of an output has another size.
        """
        for name, axes in self.output_axes.items():
            array = outputs.get(name)
            if array is None:
                continue
            for axis, length in zip(axes, lengths, strict=True):
                if axis >= array.ndim or array.shape[axis] != length:
                    raise ModelContractError(
                        f"output {name!r}: `unpad` expects the length of the batch, {length}, on "
                        f"axis {axis}; got {_got(array, axes, lengths)}"
                    )

    def own_rows(
        self, outputs: Mapping[str, Array], start: int, stop: int, lengths: Lengths
    ) -> Rows:
        """Return the rows from `start` up to, not including, `stop`, cut to `lengths`."""
        own: Rows = {}
        for name, array in outputs.items():
            axes = self.output_axes.get(name)
            if axes is None:
                own[name] = own_rows(array, start, stop)
            else:
                cut = array[(slice(start, stop), *_ends(axes, lengths))]
                own[name] = np.ascontiguousarray(cut)
        return own


Rows = dict[str, Array]


def even_rows(arrays: Mapping[str, Array], spec: ModelSpec) -> Rows:
    """Return `arrays`, which a model `spec` takes, with ragged rows padded to the longest."""
    if not any(map(is_ragged, arrays.values())):
        return dict(arrays)
    return Padding(spec).even_rows(arrays)


def longest_of(lengths: Iterable[Lengths]) -> Lengths:
    """Return the lengths that a batch needs for rows of all `lengths`."""
    return tuple(map(max, zip(*lengths, strict=True)))


def fit(lengths: Lengths, longest: Lengths) -> bool:
    """Return whether rows of `lengths` need no more padding than those of `longest`."""
    return all(own <= most for own, most in zip(lengths, longest, strict=True))


def lengths_rows(lengths: Lengths, like: Array) -> Array:
    """Return rows that each hold `lengths`, of the shape and dtype of `like`."""
    return np.full_like(like, lengths if like.ndim > 1 else lengths[0])


def _free_axes(tensor: TensorSpec) -> tuple[int, ...]:
    """Return the free axes of `tensor`, counted in the batch."""
    return tuple([axis for axis, size in enumerate(tensor.shape, 1) if size < 0])


def _sizes(shape: tuple[int, ...], axes: tuple[int, ...]) -> Lengths:
    return tuple([shape[axis] for axis in axes])


def _with_sizes(
    shape: tuple[int, ...], axes: tuple[int, ...], sizes: Sequence[int]
) -> tuple[int, ...]:
    changed = list(shape)
    for axis, size in zip(axes, sizes, strict=True):
        changed[axis] = size
    return tuple(changed)


def _ends(axes: tuple[int, ...], lengths: Lengths) -> list[slice]:
    """Return slices of the axes from 1 on: the `axes` end at `lengths`, others are whole."""
    ends = [slice(None)] * axes[-1]
    for axis, length in zip(axes, lengths, strict=True):
        ends[axis - 1] = slice(length)
    return ends


def _got(array: Array, axes: tuple[int, ...], lengths: Lengths) -> str:
    """Return the shape of an output that cannot be cut, and what to write if that is known."""
    if is_ragged(array):
        return (
            f"rows of shapes {row_shapes(array)}: of rows that the model has cut by itself write "
            "`ragged: true` in place of `unpad: true`"
        )
    got = f"shape {shape_text(array.shape)}"
    if axes[-1] < array.ndim and sorted(_sizes(array.shape, axes)) == sorted(lengths):
        return f"{got}: the lengths stand in another order than in the input; transpose the output"
    return got


def _unequal_lengths(name: str, own: Lengths, whose: str, lengths: Lengths) -> InvalidInput:
    if len(own) == 1:
        wanted, got = f"length of {whose!r}, {lengths[0]}", str(own[0])
    else:
        wanted, got = f"lengths of {whose!r}, {shape_text(lengths)}", shape_text(own)
    return InvalidInput(f"input {name!r}: expected the {wanted}; got {got}")
