"""Where each key of `model.yaml` and `config.yaml` belongs, for errors about a key elsewhere."""

from __future__ import annotations

from pydantic import BaseModel

from batcher.config.model_settings import ModelSettings
from batcher.config.reading import names_at


def levels_of_model_file(file: type[BaseModel]) -> dict[str, str]:
    """Return the level of `model.yaml`, whose class is `file`, to which each key belongs."""
    inputs, outputs = names_at(file, ("inputs", 0)), names_at(file, ("outputs", 0))
    return {
        **dict.fromkeys(names_at(file, ("inputs", 0, "image")), "`image` of an input"),
        **dict.fromkeys(inputs, "an input"),
        **dict.fromkeys(outputs, "an output"),
        **{name: "an input or an output" for name in inputs if name in outputs},
        **dict.fromkeys(names_at(file), "the top"),
    }


def places_outside_model_file(file: type[BaseModel]) -> dict[str, str]:
    """Return where a key belongs that stands at a wrong level of `model.yaml`, or in that file."""
    in_config = (
        "into config.yaml, below `models` and the model's name, or below `defaults`: model.yaml "
        "says what a model is, config.yaml how models are run"
    )
    return {
        **dict.fromkeys(names_at(ModelSettings), in_config),
        **{name: f"to {level}" for name, level in levels_of_model_file(file).items()},
    }
