"""A loaded model whose every answer is checked, and kept safe from what the model does next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batcher.core.spec import Array, check_objects, check_outputs
from batcher.errors import BatcherError, ModelContractError
from batcher.models.protocol import Arrays, Loaded, Model, PartialOutputs
from batcher.models.raised import allowed_from_model
from batcher.models.row_errors import RowErrors, non_finite_rows


class CheckedModel:
    """A model whose every answer is checked, and kept safe from what the model does next.

    Attributes:
        timings: seconds that warm-up took for a batch, by its rows.

    A model that gives the same memory for each batch (a preallocated output) would change answers
    that are still being written. Warm-up finds out; until it has shown that outputs are fresh, they
    are copied.
    """

    def __init__(self, model: Model, finite_outputs: bool = False) -> None:
        """Wrap `model`, which is loaded.

        With `finite_outputs`, rows with NaN or infinity in their outputs fail.

        Of a model with `postprocess` clients get what that makes of the outputs, so that is looked
        at instead, by `hooks.py`.
        """
        self.model = model
        self._finite_outputs = finite_outputs
        self.spec = model.spec
        self.copies_outputs = True
        self.timings: dict[int, float] = {}

    def loaded(self) -> Loaded:
        """Return what the loop needs to know of it."""
        return Loaded(
            self.model.one_call, self.model.preprocess, self.model.postprocess, self.timings
        )

    def predict(
        self, collate: Callable[..., dict[str, Array]], rows: int
    ) -> tuple[dict[str, Array], RowErrors]:
        """Run one batch of `rows` rows that `collate` puts together.

        Return outputs, and rows that failed. Inference thread.

        Raises:
            ModelContractError: the outputs are not what the specification promises.
        """
        try:
            outputs = self.model.predict(collate(self.model.allocate))
        except BatcherError as err:
            if (raised := allowed_from_model(err)) is err:
                raise
            raise raised from err
        failed: RowErrors = {}
        if isinstance(outputs, PartialOutputs):
            failed = {row: allowed_from_model(error) for row, error in outputs.failed.items()}
        if self.model.postprocess is None:
            check_outputs(self.spec, outputs, rows)
            outputs = {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}
            if self._finite_outputs:
                failed = non_finite_rows(outputs, self.spec) | failed
        else:
            _check_rows(self.spec.name, outputs, rows)
        return (
            {name: array.copy() for name, array in outputs.items()}
            if self.copies_outputs
            else outputs
        ), failed


def _check_rows(name: str, outputs: dict[str, Any] | Arrays, rows: int) -> None:
    if not outputs:
        raise ModelContractError(f"model {name!r}: expected outputs; got none")
    for output, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            got = len(array) if array.ndim else "a scalar"
            raise ModelContractError(
                f"model {name!r}: {rows} rows in, {got} rows out in output {output!r}"
            )
        if array.dtype.hasobject:
            check_objects(array, f"model {name!r}: output {output!r}")
