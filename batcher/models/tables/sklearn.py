"""Format `sklearn`: an estimator of scikit-learn, as `joblib.dump` or `pickle.dump` writes it.

A pickle runs code when it is read, so it is read only with `trusted: true`. An output has the name
of the method that gives it: `predict`, `predict_proba`, `transform` and so on (`estimator.py`).
Each method is called once for a batch, with the table of all its rows.

Classes of one's own that a pipeline holds stand in a file beside the pickle, which `imports` of
`model.yaml` names.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from batcher.core.error_text import brief_names, message
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.output_arrays import plain_array
from batcher.models.protocol import Arrays, FreshMemory, PlainModel
from batcher.models.tables.columns import Table, table_for
from batcher.models.tables.estimator import (
    METHODS,
    SOME_TEXT,
    column_names,
    known_texts,
    methods_of,
    plain,
    takes_texts,
)

UNTRUSTED = (
    "a pickle, which can run any code when it is read: set `trusted: true` for this model if you "
    "know who made the file (`--set models.NAME.trusted=true`, or in config.yaml below `models`), "
    "or convert it to ONNX with skl2onnx"
)


class SklearnModel(PlainModel, FreshMemory):
    """An estimator, or anything else that has its methods."""

    own_buffers = True  # a transformer may keep what it gets

    def load(self, device: str) -> None:
        """Read the pickle, and find the methods of the outputs. Inference thread."""
        self._model = self.read()
        methods = methods_of(self._model)
        wrong = [tensor.name for tensor in self.spec.outputs if tensor.name not in methods]
        if wrong:
            raise ModelLoadError(
                "outputs: expected names of methods that the estimator has, "
                f"{brief_names(methods) or 'none'}; got {brief_names(wrong)}"
            )
        is_lone = takes_texts(self._model)
        self._table: Table = table_for(self.spec, column_names(self._model), is_lone)
        self.sample = self._known_texts()

    def _known_texts(self) -> dict[str, Array] | None:
        """Return a row for warm-up, with texts that the model knows; None without such texts.

        An encoder may refuse texts that it has not learnt, such as the empty ones of blank rows.
        """
        inputs = self.spec.inputs
        names = column_names(self._model) or [tensor.name for tensor in inputs]
        texts = known_texts(self._model, names)
        if not any(tensor.name in texts for tensor in inputs):
            return None
        row = {
            tensor.name: np.zeros((1, *tensor.shape), tensor.datatype.numpy) for tensor in inputs
        }
        for name, values in row.items():
            if values.dtype.hasobject:
                values.fill(texts.get(name, SOME_TEXT).encode())
        return row

    def read(self) -> Any:
        """Return the object in the pickle.

        Raises:
            ModelLoadError: the model is not trusted, or the file holds no estimator.
            ModuleNotFoundError: the pickle names a module that is not installed.

        Inference thread.
        """
        file = self._definition.file
        if not self._settings.trusted:
            raise ModelLoadError(f"expected `trusted: true`; got {file.name}, {UNTRUSTED}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = _loaded(file)
        self.notes = tuple({_note(each) for each in caught if "Version" in each.category.__name__})
        if not methods_of(model):
            raise ModelLoadError(
                f"{file.name}: expected an estimator of scikit-learn, with one of the methods "
                f"{', '.join(METHODS)}; got {type(model).__name__}. For an object of another kind "
                "write a class with `load` and `predict`, format python"
            )
        return model

    def operators(self, inputs: Arrays) -> int:
        """Return 0: the number is unknown. Inference thread."""
        return 0

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Call the method of each output with the table of the batch. Inference thread."""
        table = self._table(inputs)
        answers = {}
        for tensor in self.spec.outputs:
            value = plain(getattr(self._model, tensor.name)(table))
            answers[tensor.name] = plain_array(value, f"output {tensor.name!r}")
        return answers


def _loaded(file: Path) -> Any:
    """Return the object in a pickle: joblib reads its own files and plain ones.

    Raises as `SklearnModel.read`.
    """
    import joblib

    try:
        return joblib.load(file)
    except ModuleNotFoundError:
        raise
    # Whatever the bytes make of classes, and classes of the bytes.
    except Exception as err:
        reason = f"{type(err).__name__}: {message(err)}".removesuffix(": ")
        raise ModelLoadError(
            f"{file.name}: expected a pickle of an estimator; got {reason}. {_advice(err)}"
        ) from err


def _advice(error: Exception) -> str:
    """Return what to do about the `error` of a pickle."""
    if "__main__" in str(error):
        return (
            "Functions and classes of the script that wrote the file are not in it: put them into "
            "a module beside the file, import them from there in the script, write the file again, "
            "and name the module in `imports` of model.yaml"
        )
    return (
        "The file may be damaged, or written with other versions of libraries: install those, or "
        "write the file again with the ones that are installed"
    )


def _note(caught: warnings.WarningMessage) -> str:
    """Return what scikit-learn says of a pickle of another version of it, in one line."""
    return " ".join(str(caught.message).split()).partition(" This might lead")[0]


MODEL = SklearnModel
