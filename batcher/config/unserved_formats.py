"""Formats that are not served: what to convert such a model to, and why."""

from __future__ import annotations

from batcher.config.reading import Source
from batcher.errors import ConfigError

REASONS = {
    "pfa": "nothing that runs PFA is maintained any longer (Hadrian, Titus): convert the model to "
    "ONNX from what it was made of, or to PMML, which is served",
    "graphdef": "a graph of TensorFlow 1 says neither inputs nor outputs: convert it to ONNX with "
    "tf2onnx (`python -m tf2onnx.convert --graphdef FILE --inputs … --outputs … --output "
    "model.onnx`). A SavedModel is served as the folder that holds its saved_model.pb",
    "hdf5": "Keras 3 reads it and saves what is served, or convert it to ONNX with tf2onnx: "
    "`keras.saving.load_model('net.h5', compile=False).save('net.keras')`",
    "tensorrt": "an engine runs with TensorRT alone: export the network to ONNX",
}
"""Why each format is not served, and what to do."""

SUFFIXES = {
    ".pfa": "pfa",
    ".pb": "graphdef",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
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
