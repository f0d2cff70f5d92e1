"""Format `onnx`, by onnxruntime (extra `onnx`). Names in `model.yaml` are the graph's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.protocol import Arrays, Hook


class OnnxModel:
    """A session on the CPU or on CUDA."""

    one_call = True
    pinned = False
    preprocess: Hook | None = None
    postprocess: Hook | None = None

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet."""
        self.spec = definition.spec
        self._file = definition.file
        self._must_run_on_cuda = settings.devices[0].startswith("cuda")
        self._threads = settings.torch_threads
        self._outputs = [tensor.name for tensor in self.spec.outputs]
        self._session: Any = None

    def load(self, device: str) -> None:
        """Open the session. Inference thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads or 0
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            providers.insert(
                0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)})
            )
        self._session = onnxruntime.InferenceSession(str(self._file), options, providers=providers)
        if self._must_run_on_cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            raise ModelLoadError(
                f"expected onnxruntime to run on {device}; this build of it offers the CPU alone"
            )

    def compile(self, progress: Callable[[str], None]) -> None:
        """Refuse: onnxruntime has compiled the graph in its own way. Inference thread."""
        raise ModelLoadError("expected a model of format export or python to compile; got onnx")

    def operators(self) -> int:
        """Return 1: a run is one native call. Inference thread."""
        return 1

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return fresh memory. Inference thread."""
        return np.empty(shape, dtype)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the session on one batch. Inference thread."""
        values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, map(np.asarray, values), strict=True))


MODEL = OnnxModel
