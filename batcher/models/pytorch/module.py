"""A PyTorch module, from wherever it was loaded, as a `Model`.

One subclass a format says how the module is read. Everything else is here: threads, device, stream,
staging, inference mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.protocol import Arrays, Hook
from batcher.models.pytorch import aoti
from batcher.models.pytorch.staging import HostStaging, PinnedStaging, Staging
from batcher.models.pytorch.tensors import by_name, to_array, to_host, to_tensor, torch_dtype


class TorchModule(ABC):
    """A module on one device, run in inference mode, on CUDA in a stream of its own."""

    one_call = False
    pinned = False
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
        """Return the module on `device`, ready to be called with the inputs in order.

        Inference thread.
        """

    def source(self, device: torch.device) -> torch.nn.Module | torch.export.ExportedProgram:
        """Return the module on `device` as a compiler takes it. Any thread.

        Raises:
            ModelLoadError: a module of this format cannot be compiled.
        """
        raise ModelLoadError(
            f"expected a model of format export or python to compile; got {self._definition.format}"
        )

    def compile(self, progress: Callable[[str], None]) -> None:
        """Compile the module to one native call, or take what was compiled before.

        Inference thread.

        Raises:
            ModelLoadError: it cannot be compiled. Native code does not check its inputs, so their
                shape must be known: no free axes but the batch, and no `preprocess`, which may
                change it.
        """
        if self.preprocess is not None:
            raise ModelLoadError(
                "a module with preprocess may be given other inputs than its specification says"
            )
        package = aoti.find_or_compile(self._definition, self._settings, self._device, progress)
        compiled = aoti.load_package(package, self._device)
        for rows in (1, 2, self._settings.max_batch_size):
            self._compare(compiled, rows)
        self._module = compiled
        self.one_call = True

    def _compare(self, compiled: Callable[..., Any], rows: int) -> None:
        """Check that `compiled` gives what the module gives, on numbers that are the same each time."""
        chance = torch.Generator().manual_seed(rows)
        inputs = []
        for tensor in self.spec.inputs:
            dtype, shape = torch_dtype(tensor), (rows, *tensor.shape)
            values = (
                torch.randn(shape, generator=chance)
                if dtype.is_floating_point
                else torch.zeros(shape)
            )
            inputs.append(values.to(dtype).to(self._device))
        with torch.inference_mode():
            expected = by_name(self._module(*inputs), self.spec)
            found = by_name(compiled(*inputs), self.spec)
        for name, value in expected.items():
            if not torch.allclose(
                found[name].double(), value.double(), rtol=1e-2, atol=1e-3, equal_nan=True
            ):
                raise ModelLoadError(
                    f"output {name!r} of the compiled model differs from that of the model, {rows} "
                    "rows"
                )

    def operators(self) -> int:
        """Count the operators of a batch of one blank row. Inference thread."""
        if self.one_call:
            return 1
        counter = _Counter()  # type: ignore[no-untyped-call]  # the base class has no types
        with torch.inference_mode(), counter:
            self.call(
                {
                    tensor.name: torch.zeros(
                        (1, *(tensor.warmup_shape or tensor.shape)),
                        dtype=torch_dtype(tensor),
                        device=self._device,
                    )
                    for tensor in self.spec.inputs
                }
            )
        return counter.count

    def load(self, device: str) -> None:
        """Read the module and prepare the device. Inference thread."""
        if self._settings.torch_threads is not None:
            torch.set_num_threads(
                self._settings.torch_threads
            )  # acts on the calling thread: here, not at start
        self._device = torch.device(device)
        if self._device.type == "cuda":
            self._staging = PinnedStaging()
            self.pinned = True
            self._stream = torch.cuda.Stream(self._device)
        self._module = self.read(self._device)

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a staging buffer. Inference thread."""
        return self._staging.allocate(name, shape, dtype)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the module on one batch. Inference thread."""
        with torch.inference_mode(), self._on_stream():
            tensors = {
                name: to_tensor(array, self._tensors.get(name), self._device)
                for name, array in inputs.items()
            }
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


class _Counter(TorchDispatchMode):
    """Counts the operators that are called."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def choose_device(wanted: str) -> str:
    """Return the device for the setting `wanted`: `auto` is CUDA where there is one. Any thread."""
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if wanted == "cuda" else wanted
