"""Rows of unequal lengths in a simulation: how long they are, and how batches of them are padded.

The scheduler reads lengths off the arrays of a request. So a simulated request has one input with
as many free axes as rows have lengths. Its array says its shape and holds no data: all its elements
are one byte.

    lengths 5, 3                       a row of a series, and of a picture: 5 and 5 x 3 elements
    a batch of rows of 4, 5 and 9      three rows of 9 elements, as the model pads them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from math import prod

import numpy as np

from batcher.app.simulation.distributions import Distribution, one_of
from batcher.app.simulation.loads import Load, recorded
from batcher.core.padding import Lengths, Padding
from batcher.core.spec import DATATYPES, Array, ModelSpec, TensorSpec
from batcher.errors import ConfigError

NAME = "simulated"
"""Name of the model."""

PLAIN = ModelSpec(NAME, "1", (), ())
"""A model whose rows have one length: its requests have no arrays."""

INPUT = "rows"
"""Name of the input whose rows are padded."""

KEPT_INPUTS = 1 << 14
"""Inputs of a size that are kept for the next request of that size."""

Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class RaggedRows:
    """How long the rows of requests are, and how a batch of them is padded.

    Attributes:
        lengths: sizes of the free axes of a row, one distribution for each.
        multiple: the lengths of a batch are rounded up to multiples of that.
        sizes: lengths of batches, ascending, as `pad_sizes` of a model; empty for any length.
        width: elements of a row whose lengths are all 1.
        warmup_lengths: lengths that warm-up runs; without them, the mean length.
    """

    lengths: tuple[Distribution, ...]
    multiple: int = 1
    sizes: tuple[int, ...] = ()
    width: int = 1
    warmup_lengths: tuple[int, ...] = ()

    def spec(self) -> ModelSpec:
        """Return the model that pads such rows."""
        shape = (-1,) * len(self.lengths) + (self.width,)
        tensor = TensorSpec(
            INPUT,
            DATATYPES["BOOL"],
            shape,
            pad=False,
            pad_to_multiple_of=self.multiple,
            pad_sizes=self.sizes,
        )
        return ModelSpec(NAME, "1", (tensor,), ())

    def elements(self, lengths: Lengths) -> int:
        """Return the elements of a row of `lengths` in a batch of its own, padding included."""
        return self.width * prod(Padding(self.spec()).padded_lengths(lengths))

    @property
    def mean_elements(self) -> int:
        """Elements of a row of the mean lengths, padding included."""
        means = tuple(max(round(each.mean), 1) for each in self.lengths)
        return self.elements(means)

    @property
    def warmup_elements(self) -> list[int]:
        """Elements of the rows that warm-up runs, padding included."""
        axes = len(self.lengths)
        lengths = [self.elements((length,) * axes) for length in self.warmup_lengths]
        return lengths or [self.mean_elements]

    def drawn(self, random: np.random.Generator) -> Iterator[Lengths]:
        """Iterate, without an end, over the lengths of one request after the other."""
        return zip(*(each.whole(random) for each in self.lengths), strict=True)


def recorded_lengths(load: Load) -> tuple[Distribution, ...]:
    """Return the lengths that the traces of `load` have, for each free axis; none without them.

    Raises:
        ConfigError: their lines have different numbers of lengths.
    """
    found = [arrival.lengths for arrival in recorded(load)]
    axes = {len(lengths) for lengths in found if lengths}
    if len(axes) > 1:
        raise ConfigError(f"trace: expected as many lengths in each line; got {sorted(axes)}")
    columns = zip(*filter(None, found), strict=True)
    return tuple(one_of(column, "as recorded") for column in columns)


class RequestInputs:
    """Makes the inputs of requests."""

    def __init__(self, ragged: RaggedRows | None) -> None:
        """Make arrays of the rows of `ragged`; none at all without it."""
        self._width = ragged.width if ragged is not None else 0
        self._kept = lru_cache(KEPT_INPUTS)(self._made)

    def of(self, rows: int, lengths: Lengths) -> Inputs:
        """Return the inputs of a request of `rows` rows of `lengths`."""
        return self._kept(rows, lengths)

    def _made(self, rows: int, lengths: Lengths) -> Inputs:
        if not self._width:
            return {}
        shape = (rows, *lengths, self._width)
        return {INPUT: np.broadcast_to(np.False_, shape)}


def lengths_of(ragged: RaggedRows | None, random: np.random.Generator) -> Iterator[Lengths]:
    """Iterate over the lengths of one request after the other; empty ones without `ragged`."""
    return repeat(()) if ragged is None else ragged.drawn(random)
