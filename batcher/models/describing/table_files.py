"""What files of tables say: pickles of scikit-learn, and files of XGBoost and LightGBM.

The columns stand in the file, where the model has learnt from a table with names. Which of them
hold text is seen from the encoders of a pipeline. A model of up to MANY columns with names gets an
input for each; any other gets one input with all columns. The outputs are what the methods give for
two rows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from batcher.config.model_settings import ModelSettings
from batcher.config.single_file import SingleFile
from batcher.core.spec import Array, TensorSpec
from batcher.errors import BatcherError, ConfigError
from batcher.models.describing.examples import datatype_of, example_by_name, tensor_of
from batcher.models.describing.probe import definition_from
from batcher.models.describing.wanted import Found, Values, listed
from batcher.models.loading import make_model
from batcher.models.tables.estimator import (
    MANY,
    SOME_TEXT,
    Column,
    answering,
    classes_of,
    columns_of,
    takes_texts,
    width_of,
)

_ROWS = 2
"""Rows of the run that shows the outputs: one could be taken for none."""


def describe_table(single: SingleFile, kind: str, settings: ModelSettings) -> Found:
    """Return what the file of a model of tables says. Raises ConfigError and ModelLoadError."""
    found = Found({"format": kind, "file": single.file.name}, [f"a model of {kind}"])
    model = _read(found, single, settings)
    columns: list[Column] = []
    if single.inputs:
        found.values["inputs"] = listed(single.inputs, single.title)
        found.notes.append("inputs: as --input, inputs= or the settings say")
    elif single.sample is not None:
        found.example = example_by_name(single.sample, (), single.file.parent)
        found.values["inputs"] = [tensor_of(*each) for each in found.example.items()]
        found.notes.append("inputs: of the shape of the first example")
    else:
        columns = columns_of(model) if kind == "sklearn" else _columns_of_booster(model)
        found.values["inputs"] = _inputs(model, kind, columns, single.title)
        found.notes.append("inputs: the columns that the model has learnt from")
    if not single.outputs:
        run = _Run(found, single, settings, columns)
        names = ["predict"] if kind != "sklearn" else answering(model)
        answers = run.outputs(names)
        found.values["outputs"] = [_output(*each, model) for each in answers.items()]
        if columns or not (single.inputs or single.sample):
            run.mark_missing(names[0])
        found.notes.append("outputs: as the model gave them for a few rows")
    return found


def _read(found: Found, single: SingleFile, settings: ModelSettings) -> Any:
    """Return the estimator, or the model around a booster. Raises ConfigError."""
    stub = {"inputs": [{"name": "x", "dtype": "FP64", "shape": [-1]}], **found.values}
    definition = definition_from(Found(stub, found.notes), single.title, "1", single.file.parent)
    model = make_model(definition, settings)
    try:
        if found.values["format"] == "sklearn":
            return model.read()
        model.load("cpu")
    except BatcherError as err:
        raise ConfigError(f"{single.title}: {err}") from err
    return model


def _columns_of_booster(model: Any) -> list[Column]:
    return [Column(name) for name in model.names()]


def _inputs(model: Any, kind: str, columns: list[Column], title: str) -> list[Values]:
    """Return the inputs of a model that says what it takes. Raises ConfigError."""
    if kind == "sklearn" and takes_texts(model):
        return [{"name": "text", "dtype": "BYTES", "shape": []}]
    has_text = any(column.example for column in columns)
    if columns and kind == "sklearn" and (has_text or len(columns) <= MANY):
        return [
            {"name": column.name, "dtype": "BYTES" if column.example else "FP64", "shape": []}
            for column in columns
        ]
    width = width_of(model) if kind == "sklearn" else model.width()
    if width is None:
        raise ConfigError(
            f"{title}: expected a model that says how many columns it takes; "
            f"{type(model).__name__} does not. Declare the inputs, as in "
            '--input "x=FP64[4]", or one for each column: --input "age=FP64" --input "city=BYTES"'
        )
    return [{"name": "x", "dtype": "FP64", "shape": [width]}]


class _Run:
    """Runs a model on a few rows of zeros, and of texts that it knows."""

    def __init__(
        self, found: Found, single: SingleFile, settings: ModelSettings, columns: list[Column]
    ) -> None:
        self._found, self._single, self._settings = found, single, settings
        self._examples = {column.name: column.example for column in columns}

    def outputs(self, names: list[str]) -> dict[str, Array]:
        """Return what the methods called `names` give. Raises ConfigError."""
        stub = [{"name": name, "dtype": "FP32", "shape": []} for name in names]
        try:
            return self._answers(self._found.values["inputs"], stub)
        # Whatever the library raises for such rows.
        except Exception as err:
            raise ConfigError(
                f"{self._single.title}: expected a model that runs on rows of zeros; got "
                f"{type(err).__name__}: {err}. Declare the inputs that it takes, as in "
                '--input "age=FP64" --input "city=BYTES", and the outputs: --output "predict=FP64"'
            ) from err

    def mark_missing(self, name: str) -> None:
        """Say of each input that runs with holes that values may be missing."""
        inputs = self._found.values["inputs"]
        stub = [{"name": name, "dtype": "FP32", "shape": []}]
        for place, each in enumerate(inputs):
            holes = [*inputs[:place], each | {"missing": "nan"}, *inputs[place + 1 :]]
            with suppress(Exception):  # whatever the library raises for NaN
                self._answers(holes, stub)
                inputs[place] = holes[place]

    def _answers(self, inputs: list[Values], outputs: list[Values]) -> dict[str, Array]:
        values = self._found.values | {"inputs": inputs, "outputs": outputs}
        found, folder = Found(values, self._found.notes), self._single.file.parent
        definition = definition_from(found, self._single.title, "1", folder)
        served = make_model(definition, self._settings)
        served.load("cpu")
        rows = {each.name: self._rows(each) for each in served.spec.inputs}
        answers: dict[str, Array] = served.predict(rows)
        return answers

    def _rows(self, tensor: TensorSpec) -> Array:
        if self._found.example is not None:
            return np.resize(np.asarray(self._found.example[tensor.name]), (_ROWS, *tensor.shape))
        rows: Array = np.zeros((_ROWS, *tensor.shape), tensor.datatype.numpy)
        if rows.dtype.hasobject:
            text = (self._examples.get(tensor.name) or SOME_TEXT).encode()
            rows.fill(b"" if tensor.missing_is_nan else text)
        elif tensor.missing_is_nan:
            rows.fill(np.nan)
        return rows


def _output(name: str, array: Array, model: Any) -> Values:
    """Return what `model.yaml` would say of an output."""
    values: Values = {"name": name, "dtype": datatype_of(name, array)}
    values["shape"] = list(array.shape[1:])
    classes = classes_of(model)
    if name == "predict_proba" and classes is not None and values["shape"] == [len(classes)]:
        values |= {"labels": [str(each) for each in classes.tolist()], "scores": "probability"}
    return values
