"""A model that runs with some numbers of rows alone, as `batch_sizes` in `model.yaml` says.

A batch is collated into a buffer of as many rows as it runs with. Those behind its own rows are
copies of the last one, so that the model sees nothing that no client has sent, and their outputs
are thrown away:

    batch_sizes: [1, 8, 32]
    a batch of 5 rows        a b c d e | e e e
    outputs                  A B C D E
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.core.run_sizes import RunSizes
from batcher.core.spec import Array
from batcher.models.changed_outputs import ChangedOutputs
from batcher.models.protocol import Arrays, PartialOutputs, Running


class SizedModel:
    """A loaded `Model` that runs with its numbers of rows; all else is the model's own.

    Attributes:
        own_buffers: always, since a batch must lie in a buffer of more rows.
        max_rows: the largest number of rows.
        run_sizes: the numbers of rows.
    """

    own_buffers = True

    def __init__(self, model: Any, sizes: tuple[int, ...]) -> None:
        """Run `model`, which takes batches of `sizes` rows, ascending. Inference thread."""
        self._model = model
        most = sizes[-1] if model.max_rows is None else model.max_rows
        self.run_sizes = RunSizes(sizes=tuple(size for size in sizes if size <= most) or sizes[:1])
        self.max_rows: int | None = self.run_sizes.sizes[-1]
        self._whole: dict[str, Array] = {}  # buffers of the next batch, with all rows

    def __getattr__(self, name: str) -> Any:
        """Return what the model itself has. Any thread."""
        return getattr(self._model, name)

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the first rows of a buffer for the input `name`. Inference thread."""
        rows, *row = shape
        shape = (self.run_sizes.runs_as(rows), *row)
        whole: Array = self._model.allocate(name, shape, dtype)
        self._whole[name] = whole
        return whole[:rows]

    def operators(self, inputs: Arrays) -> int:
        """Return how many operators a batch of `inputs` takes. Inference thread."""
        return int(self._model.operators(self._padded(inputs)))

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run one batch, and return the outputs of its own rows. Inference thread."""
        rows = len(next(iter(inputs.values())))
        return self._own(self._model.predict(self._padded(inputs)), rows)

    def begin(self, inputs: Arrays) -> Running:
        """Begin one batch. Inference thread."""
        rows = len(next(iter(inputs.values())))
        running = self._model.begin(self._padded(inputs))
        return ChangedOutputs(running, lambda outputs: self._own(outputs, rows))

    def _own(self, outputs: dict[str, Array], rows: int) -> dict[str, Array]:
        """Return the outputs of the `rows` rows that are no copies. Inference thread."""
        computed = self.run_sizes.runs_as(rows)
        if computed == rows:
            return outputs
        # an output of another number stays whole: the check of rows would not see it after a cut
        own = {
            name: array[:rows] if array.ndim and len(array) == computed else array
            for name, array in outputs.items()
        }
        if not isinstance(outputs, PartialOutputs):
            return own
        failed = {row: error for row, error in outputs.failed.items() if row < rows}
        return PartialOutputs(own, failed, outputs.left_out)

    def _padded(self, inputs: Arrays) -> dict[str, Array]:
        """Return the whole buffers of `inputs`, filled up with their last rows. Inference thread.

        Buffers of inputs that lie elsewhere are not used again.
        """
        whole, self._whole = self._whole, {}
        for name, array in inputs.items():
            whole[name][len(array) :] = array[-1:]
        return {name: whole[name] for name in inputs}
