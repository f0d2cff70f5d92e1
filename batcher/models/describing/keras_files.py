"""What a `.keras` file says: names, dtypes and shapes of inputs and outputs."""

from __future__ import annotations

from typing import Any

from batcher.config.model_settings import ModelSettings
from batcher.config.single_file import SingleFile
from batcher.core.spec import datatype
from batcher.errors import BatcherError, ConfigError
from batcher.models.describing.wanted import Found, Values, listed
from batcher.models.pytorch.keras_model import load_keras


def describe_keras(single: SingleFile, settings: ModelSettings) -> Found:
    """Return what the file of a model of Keras says. Raises ConfigError."""
    try:
        model = load_keras(single.file, settings.trusted)
    except BatcherError as err:
        raise ConfigError(f"{single.title}: {err}") from err
    found = Found({"format": "keras", "file": single.file.name}, ["a model of Keras"])
    if single.inputs:
        found.values["inputs"] = listed(single.inputs, single.title)
    else:
        found.values["inputs"] = [_tensor(each.name, each, single.title) for each in model.inputs]
    names = getattr(model, "output_names", None) or ["output"]
    found.values["outputs"] = [
        _tensor(name, each, single.title) for name, each in zip(names, model.outputs, strict=True)
    ]
    found.notes.append("inputs and outputs: as the model names them")
    return found


def _tensor(name: str, tensor: Any, title: str) -> Values:
    """Return what `model.yaml` would say of a tensor of Keras. Raises ConfigError."""
    try:
        dtype = datatype(tensor.dtype).name
    except KeyError as err:
        raise ConfigError(f"{title}: {name}: {err.args[0]}") from err
    return {"name": name, "dtype": dtype, "shape": [size or -1 for size in tensor.shape[1:]]}
