"""Formats that are not served: what to convert such a model to, and why."""

from __future__ import annotations

from batcher.config.reading import Source
from batcher.errors import ConfigError

REASONS = {
    "pfa": "nothing that runs PFA is maintained any longer (Hadrian, Titus): convert the model to "
    "ONNX from what it was made of, or to PMML, which is served",
    "savedmodel": "TensorFlow is not run: convert the model to ONNX with tf2onnx "
    "(`python -m tf2onnx.convert --saved-model FOLDER --output model.onnx`), or save it with "
    "Keras 3 as .keras",
    "tensorrt": "an engine runs with TensorRT alone: export the network to ONNX",
}
"""Why each format is not served, and what to do."""

SUFFIXES = {
    ".pfa": "pfa",
    ".pb": "savedmodel",
    ".h5": "savedmodel",
    ".hdf5": "savedmodel",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
}
"""How files of these formats are called."""


def refuse_unserved(source: Source) -> None:
    """Raise ConfigError if `source`, a `model.yaml`, names a format that is not served."""
    name = str(source.values.get("format"))
    if reason := REASONS.get(name.lower()):
        place = source.origin(("format",))
        expected = "expected a format that is served"
        raise ConfigError(f"{place}: format: {expected}; got {name}: {reason}")
