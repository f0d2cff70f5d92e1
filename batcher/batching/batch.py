"""A batch: parts of one group, put together into one buffer an input, and the result cut up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from batcher.batching.part import Part
from batcher.core.request import BatchOutputs, OutputRows
from batcher.core.spec import Array

_SMALL = 1 << 18
"""Up to this many bytes are joined without letting go of the interpreter lock: taking it again
costs more than they do.
"""

Allocate = Callable[[str, tuple[int, ...], "np.dtype[np.generic]"], Array]
"""Gives a writable buffer for the input of that name, shape (rows, *row shape) and dtype."""


class Batch:
    """Parts that run together. Handed to the worker whole; nothing changes it afterwards.

    Attributes:
        parts: what it is made of, in the order of its rows.
        rows: rows of all parts together.
        reason: why it was sent.
        bound_at: when it was made, in seconds on the scheduler's clock.
    """

    __slots__ = ("bound_at", "parts", "reason", "rows")

    def __init__(self, parts: Sequence[Part], reason: str = "idle", bound_at: float = 0.0) -> None:
        """Make a batch of `parts`, at least one, all of one group."""
        self.parts = parts
        self.rows = sum(part.rows for part in parts)
        self.reason = reason
        self.bound_at = bound_at

    def collate(self, allocate: Allocate) -> dict[str, Array]:
        """Return each input's rows in one writable buffer of shape (rows, *row shape). Any thread.

        A batch of one part is copied as well: the model may write into what it gets, the request's
        own arrays may be views of a body.
        """
        collated = {}
        for name, first in self.parts[0].inputs.items():
            buffer = allocate(name, (self.rows, *first.shape[1:]), first.dtype)
            _fill(buffer, [part.inputs[name] for part in self.parts])
            collated[name] = buffer
        return collated

    def split(self, outputs: Mapping[str, Array]) -> list[OutputRows]:
        """Return each part's own rows of `outputs`, as views, in the order of the parts.

        Any thread.
        """
        shared = BatchOutputs(outputs)
        split = []
        start = 0
        for part in self.parts:
            stop = start + part.rows
            split.append(OutputRows(shared, start, stop))
            start = stop
        return split


def _fill(buffer: Array, arrays: list[Any]) -> None:
    """Write `arrays` into `buffer`, one behind the other."""
    if 0 < buffer.nbytes <= _SMALL and not buffer.dtype.hasobject:
        try:
            memoryview(buffer.data).cast("B")[:] = b"".join(arrays)
            return
        except (TypeError, ValueError, BufferError):  # one of them is not contiguous
            pass
    np.concatenate(arrays, out=buffer)
