"""Formats `xgboost` and `lightgbm`: trees of a booster, in the file that the library itself writes.

    format      files                                     read by
    xgboost     `.ubj`, `.json` of `save_model`           the extra `xgboost`
    lightgbm    `.txt` of `save_model`                    the extra `lightgbm`

Such files hold trees and no code. The one output has what `predict` of the booster gives: a number
for each row, or for each class of a row. NaN is a missing value for both libraries. Inputs are
matched by name where the file names its columns, and by their order where the file does not.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any

from batcher.core.error_text import brief_names
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.output_arrays import plain_array
from batcher.models.protocol import Arrays, FreshMemory, PlainModel
from batcher.models.tables.columns import table_for

_NUMBERED = re.compile(r"(f|Column_)\d+")
"""Names that the libraries give to columns without names."""


class BoosterModel(PlainModel, FreshMemory):
    """A booster of either library."""

    def load(self, device: str) -> None:
        """Read the file. Inference thread."""
        if len(self.spec.outputs) != 1:
            raise ModelLoadError(
                "outputs: expected one output, what `predict` of the booster gives; got "
                f"{brief_names([tensor.name for tensor in self.spec.outputs])}"
            )
        self.booster = self.read()
        self._table = table_for(self.spec, self._columns(), is_lone=False)

    def _columns(self) -> list[str]:
        """Return the names by which inputs are columns; none if their order counts.

        Inference thread.
        """
        named, names = {tensor.name for tensor in self.spec.inputs}, self.names()
        is_numbered = named != set(names) and all(map(_NUMBERED.fullmatch, names))
        return [] if len(named) == 1 or is_numbered else names

    @abstractmethod
    def read(self) -> Any:
        """Return the booster in the file. Inference thread."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the columns; empty where the file has none. Inference thread."""

    @abstractmethod
    def width(self) -> int:
        """Return how many columns the booster takes. Inference thread."""

    @abstractmethod
    def values(self, table: Any) -> Any:
        """Return what the booster predicts for the rows of `table`. Inference thread."""

    def operators(self, inputs: Arrays) -> int:
        """Return 1: a run is one native call. Inference thread."""
        return 1

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the trees on the rows of the batch. Inference thread."""
        name = self.spec.outputs[0].name
        return {name: plain_array(self.values(self._table(inputs)), f"output {name!r}")}


class XgboostModel(BoosterModel):
    """A booster of XGBoost."""

    def read(self) -> Any:
        """Return the booster in the file. Inference thread."""
        import xgboost

        booster = xgboost.Booster(model_file=str(self._definition.file))
        if self._settings.torch_threads is not None:
            booster.set_param({"nthread": self._settings.torch_threads})
        return booster

    def names(self) -> list[str]:
        """Return the names of the columns. Inference thread."""
        return list(self.booster.feature_names or ())

    def width(self) -> int:
        """Return how many columns the booster takes. Inference thread."""
        return int(self.booster.num_features())

    def values(self, table: Any) -> Any:
        """Return what the booster predicts for the rows of `table`. Inference thread."""
        # Names were checked at load; a table without names is refused by a booster that has some.
        return self.booster.inplace_predict(table, validate_features=False)


class LightgbmModel(BoosterModel):
    """A booster of LightGBM."""

    def read(self) -> Any:
        """Return the booster in the file. Inference thread."""
        import lightgbm

        return lightgbm.Booster(model_file=str(self._definition.file))

    def names(self) -> list[str]:
        """Return the names of the columns. Inference thread."""
        return list(self.booster.feature_name())

    def width(self) -> int:
        """Return how many columns the booster takes. Inference thread."""
        return int(self.booster.num_feature())

    def values(self, table: Any) -> Any:
        """Return what the booster predicts for the rows of `table`. Inference thread."""
        threads = self._settings.torch_threads
        return self.booster.predict(table, **({} if threads is None else {"num_threads": threads}))


def make(definition: Any, settings: Any) -> BoosterModel:
    """Return the model of a booster, not loaded yet. Any thread."""
    kind = XgboostModel if definition.format == "xgboost" else LightgbmModel
    return kind(definition, settings)


MODEL = make
