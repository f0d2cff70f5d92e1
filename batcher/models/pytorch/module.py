"""A PyTorch module on one device, as a `Model`; the base class of the formats that load a module.

A format says how its module is read (`read`) and, if it can, gives the source for a compiler
(`source`). Everything else is here. One batch on CUDA, in a stream of the model's own:

    pinned buffer -> to_tensor -> module -> to_host (pinned) -> synchronise -> arrays
                    (asynchronous)         (asynchronous)

The inference thread waits for the device once, at the end of the batch, and not after each copy. On
the CPU arrays and tensors share their memory.

`compile` replaces the module by a package of native code (`aoti.py`), after the package has given
the same answers as the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.output_arrays import output_arrays
from batcher.models.protocol import Arrays, FreshMemory, PlainModel, Progress
from batcher.models.pytorch import aoti
from batcher.models.pytorch.aoti_packages import weights_digest
from batcher.models.pytorch.autograd import batch_mode
from batcher.models.pytorch.comparing import comparison_inputs, other_output, outputs_of
from batcher.models.pytorch.precision import ROUNDING, InPrecision, precision_of
from batcher.models.pytorch.prepared_inputs import PreparedInputs
from batcher.models.pytorch.staging import PinnedStaging, Staging
from batcher.models.pytorch.tensors import to_host, to_tensor
from batcher.models.result_names import named_outputs

Weighted = TypeVar("Weighted", bound=torch.nn.Module)
Called = TypeVar("Called", bound=Callable[..., Any])


class TorchModule(PlainModel, ABC):
    """A module on one device, on CUDA in a stream of its own."""

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        super().__init__(definition, settings)
        self._staging: Staging = FreshMemory()
        self._device = torch.device("cpu")
        self._stream: torch.cuda.Stream | None = None
        self._module: Callable[..., Any]
        self._input_specs = {tensor.name: tensor for tensor in self.spec.inputs}
        self._prepared: PreparedInputs | None = None
        self._precision = precision_of(settings)

    @abstractmethod
    def read(self, device: torch.device) -> Callable[..., Any]:
        """Return the module on `device`, ready to be called with the inputs in order.

        Inference thread.
        """

    def source(self, device: torch.device) -> torch.nn.Module:
        """Return the module on `device` as a compiler takes it, with the inputs in order.

        Raises:
            ModelLoadError: a module of this format cannot be compiled.

        Any thread.
        """
        raise ModelLoadError(
            f"expected a model of format export or python to compile; got {self._definition.format}"
        )

    def with_weights(self, module: Weighted) -> Weighted:
        """Return `module` with its weights in the numbers of the settings. Any thread."""
        return module if self._precision is None else self._precision.with_weights(module)

    def in_precision(self, module: Called) -> Called | InPrecision:
        """Return `module`, called with and returning what `model.yaml` declares. Any thread."""
        return module if self._precision is None else self._precision.around(module, self.spec)

    def load(self, device: str) -> None:
        """Read the module and prepare the device. Inference thread."""
        # PyTorch keeps this number for each thread: it must be set on the thread that predicts.
        if self._settings.torch_threads is not None:
            torch.set_num_threads(self._settings.torch_threads)
        self._device = torch.device(device)
        if self._device.type == "cuda":
            self._staging = PinnedStaging()
            self.own_buffers = True
            self._stream = torch.cuda.Stream(self._device)
        self._module = self.read(self._device)
        if self.preprocess is not None:
            assert isinstance(self._module, torch.nn.Module)
            self._prepared = PreparedInputs(self._module, self.spec, self.in_precision)
        self._refuse_text()

    def _refuse_text(self) -> None:
        """Check that no text reaches the module, and that the module need not return text.

        Raises:
            ModelLoadError: a tensor of the specification is BYTES, and no hook takes its place.

        Inference thread.
        """
        for tensors, hook, name in (
            (self.spec.inputs, self.preprocess, "preprocess"),
            (self.spec.outputs, self.postprocess, "postprocess"),
        ):
            texts = [tensor.name for tensor in tensors if tensor.datatype.name == "BYTES"]
            if texts and hook is None:
                raise ModelLoadError(
                    f"{texts[0]!r}: expected a dtype that PyTorch has; got BYTES. Give a module of "
                    f"format python a `{name}` that works with the text"
                )

    def refuse_lacking(self, what: str) -> None:
        """Check that the model gets every input in every batch, as `what` needs it.

        Raises:
            ModelLoadError: an optional input has no default.

        Any thread.
        """
        for tensor in self.spec.inputs:
            if tensor.may_lack:
                raise ModelLoadError(
                    f"input {tensor.name!r}: expected a `default` for an optional input, since "
                    f"{what} takes all inputs; got none"
                )

    def compile(self, progress: Progress) -> None:
        """Compile the module to one native call, or take the package that is kept.

        Raises:
            ModelLoadError: the module cannot be compiled. Native code does not check its inputs,
                so their shapes must be known: no free axes but the batch, and no `preprocess`,
                which may change the shapes.

        Inference thread.
        """
        self.refuse_lacking("compiled code")
        if self.preprocess is not None:
            raise ModelLoadError(
                "a module with preprocess may be given other inputs than its specification says"
            )
        module = self._module
        weights = weights_digest(module) if isinstance(module, torch.nn.Module) else ""
        rows = max(self._comparison_sizes())
        wanted = aoti.Wanted(self._definition, self._settings, self._device, weights, rows)
        self._module = self.fitted(aoti.compiled_module(wanted, self._check_compiled, progress))
        self.one_call = True

    def _check_compiled(self, compiled: Callable[..., Any]) -> None:
        """Check that `compiled` gives the outputs of the module.

        Raises:
            UnusablePackage: an output differs by more than rounding explains.

        Inference thread.
        """
        fitted = self.fitted(compiled)
        for rows in self._comparison_sizes():
            self._compare(fitted, rows)

    def fitted(self, module: Callable[..., Any]) -> Callable[..., Any]:
        """Return `module`, which takes what the source takes, for batches of any size.

        Inference thread.
        """
        return module

    def _comparison_sizes(self) -> list[int]:
        """Return the sizes of batches on which a compiled module is compared. Any thread."""
        # The compiler's example has 2 rows; 1 and the largest batch are the ends of the range.
        largest = min(self._settings.max_batch_size, self.max_rows or self._settings.max_batch_size)
        return sorted({1, min(2, largest), largest})

    def _compare(self, compiled: Callable[..., Any], rows: int) -> None:
        """Check that `compiled` gives the outputs of the module on `rows` rows.

        Raises:
            UnusablePackage: an output differs by more than rounding explains.

        Inference thread.
        """
        inputs = comparison_inputs(self.spec, rows, self._device)
        tolerance = ROUNDING if self._precision is None else self._precision.tolerance
        with self._batch_mode():
            expected, got = (
                outputs_of(each, inputs, self.spec) for each in (self._module, compiled)
            )
            name = other_output(got, expected, tolerance)
        if name:
            raise aoti.UnusablePackage(
                f"output {name!r} of the compiled model differs from that of the model, {rows} rows"
            )

    def operators(self, inputs: Arrays) -> int:
        """Count the operators of a batch of `inputs`. Inference thread."""
        if self.one_call:
            return 1
        if _is_compiled(self._module):
            return 0
        counter = _OperatorCounter()  # type: ignore[no-untyped-call]  # the base class has no types
        with self._batch_mode():
            tensors = self._tensors(inputs)
            with counter:
                self.call(tensors)
        return counter.count

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a staging buffer. Inference thread."""
        return self._staging.allocate(name, shape, dtype)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the module on one batch. Inference thread."""
        is_raw = self.postprocess is not None
        with self._batch_mode(), self._on_stream():
            result = self.call(self._tensors(inputs))
            outputs, left_out = named_outputs(result, self.spec, is_raw)
            # All copies are started before the first one is waited for.
            on_host = {name: to_host(value) for name, value in outputs.items()}
            if self._stream is not None:
                self._stream.synchronize()
            return output_arrays(on_host, self.spec, left_out, is_raw)

    def _tensors(self, inputs: Arrays) -> dict[str, torch.Tensor]:
        """Return `inputs` as tensors on the device. Inference thread."""
        return {
            name: to_tensor(array, self._input_specs.get(name), self._device)
            for name, array in inputs.items()
        }

    def call(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Call the module with the inputs in the order of the specification.

        In the place of an optional input that is left out stands None.

        A module with `preprocess` gets what the hook made, as `PreparedInputs` says.

        Inference thread.
        """
        if self._prepared is not None:
            return self._prepared.call(tensors)
        return self._module(*(tensors.get(tensor.name) for tensor in self.spec.inputs))

    def _batch_mode(self) -> AbstractContextManager[Any]:
        """Return a context in which one batch runs. Inference thread."""
        return batch_mode(self._definition.gradients)

    def _on_stream(self) -> AbstractContextManager[Any]:
        """Return a context in which work goes to the model's own stream. Inference thread."""
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()


def _is_compiled(module: Callable[..., Any]) -> bool:
    """Return whether `torch.compile` has made a part of `module`. Inference thread.

    Such a part is not compiled while operators are counted, and may refuse to run as it is.
    """
    parts = module.modules() if isinstance(module, torch.nn.Module) else ()
    return any(hasattr(part, "_orig_mod") for part in parts)


class _OperatorCounter(TorchDispatchMode):
    """Counts the operators that are called in its context.

    Attributes:
        count: operators so far.
    """

    count = 0
    supports_higher_order_operators = True  # control flow, such as `torch.cond`

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: to hide from TorchDynamo would import it, which takes seconds. Any thread.

        Nothing is compiled under this mode: the operators of compiled modules are not counted.
        """
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count `func` and call it. Inference thread."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def choose_device(setting: str) -> str:
    """Return the device for a `setting`: `auto` is CUDA where there is one. Any thread."""
    if setting == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if setting == "cuda" else setting
