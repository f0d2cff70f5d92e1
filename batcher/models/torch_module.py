"""A PyTorch module, from wherever it was loaded, as a `Model`.

One subclass a format says how the module is read. Everything else is here: threads, device, stream, staging, inference
mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ModelSettings
from batcher.models.protocol import Arrays, Hook
from batcher.models.staging import HostStaging, PinnedStaging, Staging
from batcher.models.tensors import by_name, to_array, to_host, to_tensor
from batcher.spec import Array


class TorchModule(ABC):
    """A module on one device, run in inference mode, on CUDA in a stream of its own."""

    preprocess: Hook | None = None
    postprocess: Hook | None = None

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet."""
        self.spec = definition.spec
        self._definition = definition
        self._settings = settings
        self._staging: Staging = HostStaging()
        self._device = torch.device("cpu")
        self._stream: torch.cuda.Stream | None = None
        self._module: Callable[..., Any]
        self._tensors = {tensor.name: tensor for tensor in self.spec.inputs}

    @abstractmethod
    def read(self, device: torch.device) -> Callable[..., Any]:
        """Return the module on `device`, ready to be called with the inputs in order. Inference thread."""

    def load(self, device: str) -> None:
        """Read the module and prepare the device. Inference thread."""
        if self._settings.torch_threads is not None:
            torch.set_num_threads(self._settings.torch_threads)  # acts on the calling thread: here, not at start
        self._device = torch.device(device)
        if self._device.type == "cuda":
            self._staging = PinnedStaging()
            self._stream = torch.cuda.Stream(self._device)
        self._module = self.read(self._device)

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a staging buffer. Inference thread."""
        return self._staging.allocate(name, shape, dtype)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the module on one batch. Inference thread."""
        with torch.inference_mode(), self._on_stream():
            tensors = {name: to_tensor(array, self._tensors.get(name), self._device) for name, array in inputs.items()}
            outputs = by_name(self.call(tensors), self.spec)
            on_host = {name: to_host(value) for name, value in outputs.items()}
            if self._stream is not None:
                self._stream.synchronize()
            return {name: to_array(value) for name, value in on_host.items()}

    def call(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Call the module with the inputs in the order of the specification. Inference thread."""
        return self._module(*(tensors[tensor.name] for tensor in self.spec.inputs))

    def _on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()


def choose_device(wanted: str) -> str:
    """Return the device for the setting `wanted`: `auto` is CUDA where there is one. Any thread."""
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if wanted == "cuda" else wanted
