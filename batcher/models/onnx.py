"""Format `onnx`: an ONNX graph, run by onnxruntime (extra `onnx`).

Names of inputs and outputs in `model.yaml` are those of the graph. onnxruntime releases the
interpreter lock while a batch runs, and a run is one native call. BYTES are tensors of strings in
the graph, whose text is UTF-8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import InvalidInput, ModelLoadError
from batcher.models.protocol import Arrays, FreshMemory, Hook, Progress


class OnnxModel(FreshMemory):
    """A session of onnxruntime, on the CPU or on CUDA."""

    one_call = True
    max_rows: int | None = None
    notes: tuple[str, ...] = ()
    pinned = False
    preprocess: Hook | None = None
    postprocess: Hook | None = None

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        self.spec = definition.spec
        self._file = definition.file
        self._must_run_on_cuda = settings.devices[0].startswith("cuda")
        self._threads = settings.torch_threads
        self._output_names = [tensor.name for tensor in self.spec.outputs]
        self._text_inputs = [
            tensor.name for tensor in self.spec.inputs if tensor.datatype.name == "BYTES"
        ]
        self._session: Any = None

    def load(self, device: str) -> None:
        """Open the session.

        Raises:
            ModelLoadError: the settings name CUDA, and this build of onnxruntime has the CPU alone.

        Inference thread.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads or 0
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            number = int(device.partition(":")[2] or 0)
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
        self._session = onnxruntime.InferenceSession(str(self._file), options, providers=providers)
        # onnxruntime falls back to the CPU without an error. Where the device was chosen by `auto`
        # the fallback is welcome, where the operator named CUDA it is not.
        if self._must_run_on_cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            raise ModelLoadError(
                f"expected onnxruntime to run on {device}; this build of it offers the CPU alone"
            )

    def compile(self, progress: Progress) -> None:
        """Refuse: onnxruntime has compiled the graph in its own way.

        Raises:
            ModelLoadError: always.

        Inference thread.
        """
        raise ModelLoadError("expected a model of format export or python to compile; got onnx")

    def operators(self, inputs: Arrays) -> int:
        """Return 1: a run is one native call. Inference thread."""
        return 1

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the session on one batch.

        Raises:
            InvalidInput: an element of BYTES is not UTF-8.

        Inference thread.
        """
        arrays = dict(inputs)
        for name in self._text_inputs:
            arrays[name] = _strings(arrays[name], name)
        values = self._session.run(self._output_names, arrays)
        return dict(zip(self._output_names, map(_array, values), strict=True))


def _strings(array: Any, name: str) -> Array:
    """Return an array of bytes as one of strings: onnxruntime would write `b'…'` for bytes."""
    strings = np.empty(array.size, object)
    try:
        strings[:] = list(map(bytes.decode, array.ravel().tolist()))
    except UnicodeDecodeError as err:
        raise InvalidInput(
            f"input {name!r}: expected text in UTF-8; got {err.object[:40]!r}"
        ) from err
    return strings.reshape(array.shape)


def _array(value: Any) -> Array:
    """Return an output as an array, strings as bytes."""
    array = np.asarray(value)
    if not array.dtype.hasobject:
        return array
    encoded = np.empty(array.size, object)
    encoded[:] = list(map(str.encode, array.ravel().tolist()))
    return encoded.reshape(array.shape)


MODEL = OnnxModel
