"""How long the rows of a padded model are, in a tuning: in real load, in batches, simulated.

The rows that real load sends are made first (`sample_rows`). How many elements the model then gets
is asked of the server: a text of ten words may be fourteen tokens. Three of the rows, the shortest,
the middle one and the longest, are what l(b, length) is measured with. Simulated requests have the
lengths of the rows in turn, as real load has: drawn at random, more long rows would meet by chance,
and the 99th percentile would be half as long again.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import NamedTuple

from batcher.app.simulation.distributions import in_turn
from batcher.app.simulation.ragged import RaggedRows
from batcher.core.padding import Padding
from batcher.core.spec import ModelSpec


class RowSize(NamedTuple):
    """The elements of a row.

    Attributes:
        own: without padding.
        padded: as a batch of such rows alone has them.
    """

    own: int
    padded: int


def measured_places(sizes: Sequence[RowSize]) -> list[int]:
    """Return the places of the shortest, the middle and the longest of `sizes`, each once."""
    padded = [size.padded for size in sizes]
    return [padded.index(each) for each in sorted({min(padded), median_low(padded), max(padded)})]


def words_of_sizes(sizes: Sequence[RowSize]) -> str:
    """Return how long rows of `sizes` are, in words."""
    own = [size.own for size in sizes]
    if min(own) == max(own):
        return f"{own[0]} elements a row"
    return f"{min(own)} to {max(own)} elements a row, median {median_low(own)}"


def simulated_rows(spec: ModelSpec, sizes: Sequence[RowSize]) -> RaggedRows | None:
    """Return how rows of `sizes` are padded by the model `spec`; None where they are not.

    Rows of several lengths, such as pictures, count by their elements: all axes of a row that a
    tuning makes have one length, so the longest of a batch is the longest on each axis.
    """
    if not sizes:
        return None
    own = [size.own for size in sizes]
    tensor = next(each for each in (*spec.inputs, *spec.prepared) if each.pad is not None)
    if tensor.free_axes > 1:
        return RaggedRows((in_turn(own, "measured"),))
    width = max(tensor.fixed_size, 1)
    lengths = [max(each // width, 1) for each in own]
    warmup = (lengths[0], *Padding(spec).warmup_lengths)
    multiple, edges = tensor.pad_to_multiple_of, tensor.pad_sizes
    return RaggedRows((in_turn(lengths, "measured"),), multiple, edges, width, warmup)
