"""A batch: parts of one group, joined into one buffer for each input; the outputs are cut again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from batcher.batching.part import Part
from batcher.batching.ragged_cuts import padded_group
from batcher.core.padding import RaggedGroup
from batcher.core.ragged import is_ragged, own_rows
from batcher.core.request import BatchOutputs, OutputRows
from batcher.core.spec import Array

_MAX_JOINED_BYTES = 1 << 18
"""Bytes of a buffer up to which it is filled by `bytes.join`, which keeps the interpreter lock.

NumPy lets go of the lock while it copies; to take it again costs more than so small a copy.
"""

Allocate = Callable[[str, tuple[int, ...], "np.dtype[np.generic]"], Array]
"""Returns a writable buffer for an input: its name, shape (rows, *row shape) and dtype."""


Place = Callable[[str, Sequence[Part]], bool]
"""Has the rows of an input, by its name, put together where the model computes, from the memory of
its device. Returns False if not all of the parts have their rows there: nothing was done.
"""


class Batch:
    """Parts that run together. A batch is handed to its worker whole and never changes.

    Attributes:
        parts: the parts, in the order of their rows in the batch.
        rows: rows of all parts together.
        group: what the parts share; where rows are padded, with the length of the batch.
        reason: flush reason, see `policies.policy`.
        bound_at: time in seconds, on the scheduler's clock, at which the batch was made.
    """

    __slots__ = ("bound_at", "group", "parts", "reason", "rows")

    def __init__(self, parts: Sequence[Part], reason: str = "idle", bound_at: float = 0.0) -> None:
        """Make a batch of `parts`, at least one, all of one group."""
        self.parts = parts
        self.rows = sum(part.rows for part in parts)
        self.reason = reason
        self.bound_at = bound_at
        group = parts[0].group
        self.group = padded_group(parts) if isinstance(group, RaggedGroup) else group

    def collate(self, allocate: Allocate, place: Place | None = None) -> dict[str, Array]:
        """Return each input's rows in one writable buffer of shape (rows, *row shape). Any thread.

        A batch of one part is copied as well: a model may write into its inputs, and the arrays of
        a request may be views of the body that its client sent.

        What `place` has put together is not copied: the buffer of that input means nothing.
        """
        if isinstance(self.group, RaggedGroup):
            return self._padded(self.group, allocate)
        collated = {}
        for name, first in self.parts[0].inputs.items():
            buffer = allocate(name, (self.rows, *first.shape[1:]), first.dtype)
            if place is None or not place(name, self.parts):
                _fill(buffer, [part.inputs[name] for part in self.parts])
            collated[name] = buffer
        return collated

    def split(self, outputs: Mapping[str, Array]) -> list[Mapping[str, Array]]:
        """Return each part's own rows of `outputs`, in their order. Any thread.

        The rows are views, but where they are ragged and those of the part have one shape.
        """
        if isinstance(self.group, RaggedGroup) and self.group.padding.output_axes:
            return self._unpadded(self.group, outputs)
        is_uneven = False
        for array in outputs.values():
            # Asked here first: a call would cost each batch.
            if array.dtype.hasobject and is_ragged(array):
                is_uneven = True
        shared = BatchOutputs(outputs)
        split: list[Mapping[str, Array]] = []
        start = 0
        for part in self.parts:
            stop = start + part.rows
            if is_uneven:
                own = {name: own_rows(array, start, stop) for name, array in outputs.items()}
                split.append(own)
            else:
                split.append(OutputRows(shared, start, stop))
            start = stop
        return split

    def _padded(self, group: RaggedGroup, allocate: Allocate) -> dict[str, Array]:
        """Collate, and pad the rows to the lengths of the batch. Any thread."""
        collated = {}
        for name, first in self.parts[0].inputs.items():
            shape = group.padding.padded_shape(name, first.shape[1:], group.lengths)
            buffer = allocate(name, (self.rows, *shape), first.dtype)
            arrays = [part.inputs[name] for part in self.parts]
            if any(array.shape[1:] != shape for array in arrays):
                group.padding.fill(buffer, name, arrays)
            else:
                _fill(buffer, arrays)
            collated[name] = buffer
        return collated

    def _unpadded(
        self, group: RaggedGroup, outputs: Mapping[str, Array]
    ) -> list[Mapping[str, Array]]:
        """Split, and cut the rows of each part to its own lengths. Any thread."""
        padding = group.padding
        padding.check_outputs(outputs, group.lengths)
        split: list[Mapping[str, Array]] = []
        start = 0
        for part in self.parts:
            stop = start + part.rows
            split.append(padding.own_rows(outputs, start, stop, padding.lengths_of(part.inputs)))
            start = stop
        return split


def _fill(buffer: Array, arrays: list[Any]) -> None:
    """Write `arrays` into `buffer`, one after the other."""
    if 0 < buffer.nbytes <= _MAX_JOINED_BYTES and not buffer.dtype.hasobject:
        try:
            memoryview(buffer.data).cast("B")[:] = b"".join(arrays)
            return
        # one of the arrays is not contiguous
        except (TypeError, ValueError, BufferError):
            pass
    np.concatenate(arrays, out=buffer)
