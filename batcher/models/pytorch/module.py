"""A PyTorch module on one device, as a `Model`; the base class of the formats that load a module.

A format says how its module is read (`read`) and, if it can, gives the source for a compiler
(`source`). Everything else is here. One batch on CUDA, in a stream of the model's own:

    pinned buffer -> to_tensor -> module -> to_host (pinned) -> synchronise -> arrays
                    (asynchronous)         (asynchronous)

The inference thread waits for the device once, at the end of the batch, and not after each copy. On
the CPU arrays and tensors share their memory. Rows that the next model of a pipeline takes are kept
on the device as well (`kept_rows.py`).

`compile` replaces the module by a package of native code (`aoti.py`), after the package has given
the same answers as the module, or has it compiled as it runs (`inductor.py`). `capture` has batches
replayed as CUDA graphs (`graphs.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.device_work import WorkCounts
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ModelLoadError
from batcher.models.output_arrays import output_arrays
from batcher.models.protocol import Arrays, FreshMemory, Hook, PlainModel, Progress
from batcher.models.pytorch import aoti
from batcher.models.pytorch.aoti_packages import weights_digest
from batcher.models.pytorch.autograd import batch_mode
from batcher.models.pytorch.comparing import comparison_inputs, other_output, outputs_of
from batcher.models.pytorch.gpu import Gpu, Stream, gpu_of
from batcher.models.pytorch.graphs import Call, Graphs, ladder
from batcher.models.pytorch.inductor import Inductor
from batcher.models.pytorch.kept_rows import DeviceRows
from batcher.models.pytorch.operator_counts import OperatorCounter, is_compiled
from batcher.models.pytorch.overlapped import OverlappedModel
from batcher.models.pytorch.precision import precision_of
from batcher.models.pytorch.prepared_inputs import OnDevice, PreparedInputs
from batcher.models.pytorch.staging import PinnedStaging, Staging
from batcher.models.pytorch.tensors import copy_each, is_dense, to_host, to_tensor
from batcher.models.result_names import named_outputs


class TorchModule(PlainModel, ABC):
    """A module on one device, on CUDA in a stream of its own.

    Attributes:
        precision: numbers that the module computes in.
        call: calls the module with the inputs of a batch, tensors on its device, by their names.
        device_hook: `preprocess` of the module where it runs on the device; else None.
        device_rows: its `kept_rows`; None on the CPU.
    """

    device_rows: DeviceRows | None = None

    device_hook: Callable[[dict[str, torch.Tensor]], Any] | None = None

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        super().__init__(definition, settings)
        self._staging: Staging = FreshMemory()
        self._device = torch.device("cpu")
        self._gpu: Gpu | None = None
        self._stream: Stream
        self._module: Callable[..., Any]
        self._input_specs = {tensor.name: tensor for tensor in self.spec.inputs}
        self.call: Call
        self.precision = precision_of(settings)
        self._compiles = False

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

    def load(self, device: str) -> None:
        """Read the module and prepare the device. Inference thread."""
        # PyTorch keeps this number for each thread: it must be set on the thread that predicts.
        if self._settings.torch_threads is not None:
            torch.set_num_threads(self._settings.torch_threads)
        self._device = torch.device(device)
        self._gpu = gpu_of(self._device)
        if self._gpu is not None:
            self._staging = PinnedStaging()
            self.own_buffers = True
            self._stream = self._gpu.stream()
            self.work = WorkCounts()
        # Weights are cast there too: another stream would not wait for that.
        with self._on_stream():
            self._module = self.read(self._device)
        if self.preprocess is not None or self.device_hook is not None:
            self.call = self._prepared(self.precision.around)
        else:
            self.call = _in_order(self._module, self.spec)
        _refuse_text(self.spec, self.preprocess, self.postprocess)
        if self._gpu is not None:
            keeps = self.postprocess is None and self._settings.memory_limit is None
            self.kept_rows = self.device_rows = DeviceRows(self._device, self.spec, keeps)

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
        """Compile the module, ahead of time or as it runs.

        Raises:
            ModelLoadError: the module cannot be compiled. Native code does not check its inputs,
                so for `aoti` their shapes must be known: no free axes but the batch, and no
                `preprocess`, which may change the shapes.

        Inference thread.
        """
        if self._settings.compile == "inductor":
            self._compile_as_it_runs(progress)
            return
        self.refuse_lacking("compiled code")
        if self.preprocess is not None or self.device_hook is not None:
            raise ModelLoadError(
                "a module with preprocess may be given other inputs than its specification says"
            )
        module = self._module
        weights = weights_digest(module) if isinstance(module, torch.nn.Module) else ""
        wanted = aoti.Wanted(self._definition, self._settings, self._device, weights, self._largest)
        self._module = self.fitted(aoti.compiled_module(wanted, self._check_compiled, progress))
        self.native_bytes = _weights_bytes(module)
        self.call = _in_order(self._module, self.spec)
        self.one_call = True

    def _compile_as_it_runs(self, progress: Progress) -> None:
        """Have the module compiled by its first batches. Raises as `compile`. Inference thread."""
        if type(self).source is TorchModule.source:
            self.source(self._device)
        compiler = partial(Inductor, mode=self._settings.compile_mode, progress=progress)
        if self.preprocess is not None or self.device_hook is not None:
            # What a hook makes is known only when the first batch has come.
            around = self.precision.around
            self.call = self._prepared(lambda module, spec: compiler(around(module, spec)))
        else:
            compiled = compiler(self._module)
            if not any(tensor.free_axes or tensor.may_lack for tensor in self.spec.inputs):
                self._check_compiled(compiled)
            self._module = compiled
            self.call = _in_order(compiled, self.spec)
        self._compiles = True

    def _prepared(self, wrapped: Callable[..., Callable[..., Any]]) -> Call:
        """Return what calls the module, `wrapped`, with what its hook makes. Inference thread.

        What a hook makes has names of its own, as `prepared_inputs.py` says.
        """
        assert isinstance(self._module, torch.nn.Module)
        call = PreparedInputs(self._module, self.spec, wrapped).call
        if self.device_hook is None:
            return call
        return OnDevice(self.device_hook, call, self.spec.name).call

    def _check_compiled(self, compiled: Callable[..., Any]) -> None:
        """Check that `compiled` gives the outputs of the module.

        Raises:
            UnusablePackage: an output differs by more than rounding explains.

        Inference thread.
        """
        pair = (self._module, self.fitted(compiled))
        # The compiler's example has 2 rows; 1 and the largest batch are the ends of the range.
        for rows in sorted({1, min(2, self._largest), self._largest}):
            # Code that is compiled now is for tensors made in this mode.
            with self.batch_mode(), self._on_stream():
                inputs = comparison_inputs(self.spec, rows, self._device)
                expected, got = (outputs_of(each, inputs, self.spec) for each in pair)
                name = other_output(got, expected, self.precision.tolerance)
            if name:
                raise aoti.UnusablePackage(
                    f"output {name!r} of the compiled model differs from that of the model, "
                    f"{rows} rows"
                )

    def fitted(self, module: Callable[..., Any]) -> Callable[..., Any]:
        """Return `module`, which takes what the source takes, for batches of any size.

        Inference thread.
        """
        return module

    @property
    def _largest(self) -> int:
        """The rows of the largest batch."""
        most = self._settings.max_batch_size
        return most if self.max_rows is None else min(most, self.max_rows)

    def capture(
        self, sizes: tuple[int, ...], example: Callable[[int], Arrays], progress: Progress
    ) -> tuple[int, ...]:
        """Capture a graph for each of `sizes`, or of a ladder; as in Model. Inference thread."""
        if self._gpu is None or self.work is None:
            raise ModelLoadError(f"expected `device: cuda`; got {self._device}")
        if self._definition.gradients:
            raise ModelLoadError("expected `gradients: false` in model.yaml; got true")
        self.refuse_lacking("a graph")
        sizes = sizes or ladder(self._largest)
        sizes = tuple(size for size in sizes if size <= self._largest) or sizes[:1]
        graphs = Graphs(self.call, self._gpu, self._stream, self.precision.tolerance, self.work)
        with self.batch_mode(), self._on_stream():
            # The largest first: it takes the memory that the others share.
            for size in reversed(sizes):
                progress(f"capturing a graph, batch size {size}")
                graphs.capture(self.tensors(example(size), self._device))
            if self._settings.cuda_graphs == "auto":
                smallest = self.tensors(example(sizes[0]), self._device)
                if not graphs.is_worthwhile(smallest):
                    progress("note: no CUDA graphs: kernels take longer here than to ask for them")
                    return ()
        self.call = graphs.call
        self.one_call = True
        return sizes

    def overlapped(self) -> Any:
        """Return this model, whose batches may overlap if it is on a GPU. Inference thread."""
        if self._gpu is None:
            return self
        return OverlappedModel(self, self._gpu, self._stream)

    def operators(self, inputs: Arrays) -> int:
        """Count the operators of a batch of `inputs`. Inference thread."""
        if self.one_call:
            return 1
        if self._compiles or is_compiled(self._module):
            return 0
        counter = OperatorCounter()  # type: ignore[no-untyped-call]  # the base class has no types
        with self.batch_mode(), self._on_stream():
            tensors = self.tensors(inputs, self._device)
            with counter:
                self.call(tensors)
        return counter.count

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a staging buffer. Inference thread."""
        return self._staging.allocate(name, shape, dtype)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the module on one batch. Inference thread."""
        is_raw, kept = self.postprocess is not None, self.device_rows
        with self.batch_mode(), self._on_stream():
            tensors = self.tensors(inputs, self._device)
            if kept is not None and kept.placed:
                tensors = kept.joined(inputs, tensors)
            outputs, left_out = named_outputs(self.call(tensors), self.spec, is_raw)
            on_host: dict[str, Any] = {}
            copies: dict[str, torch.Tensor] = {}
            try:
                # All copies are started before the first one is waited for.
                copy_each(outputs, to_host, on_host)
                if kept is not None:
                    copies = kept.copies(outputs)
            finally:
                if self._gpu is not None:
                    self._stream.synchronize()
            self.count_copies(inputs, outputs)
            arrays = output_arrays(on_host, self.spec, left_out, is_raw)
        if kept is not None:
            kept.note(arrays, copies)
        return arrays

    def count_copies(self, inputs: Arrays, outputs: Mapping[str, Any]) -> None:
        """Count the bytes of a batch that go to the device and come back. Inference thread."""
        if self.work is not None:
            tensors = filter(is_dense, outputs.values())
            placed = self.device_rows.placed if self.device_rows is not None else ()
            there = sum([array.nbytes for name, array in inputs.items() if name in placed])
            self.work.bytes_on_device += there
            self.work.bytes_to_device += sum(array.nbytes for array in inputs.values()) - there
            self.work.bytes_to_host += sum(tensor.nbytes for tensor in tensors)

    def tensors(self, inputs: Arrays, device: torch.device) -> dict[str, torch.Tensor]:
        """Return `inputs` as tensors on `device`, but those whose rows were found on the GPU.

        Inference thread.
        """
        placed = self.device_rows.placed if self.device_rows is not None else ()
        return {
            name: to_tensor(array, self._input_specs.get(name), device)
            for name, array in inputs.items()
            if name not in placed
        }

    def batch_mode(self) -> AbstractContextManager[Any]:
        """Return a context in which one batch runs. Inference thread."""
        return batch_mode(self._definition.gradients)

    def _on_stream(self) -> AbstractContextManager[Any]:
        """Return a context in which work goes to the model's own stream. Inference thread."""
        return self._gpu.on(self._stream) if self._gpu is not None else nullcontext()


def _refuse_text(spec: ModelSpec, preprocess: Hook | None, postprocess: Hook | None) -> None:
    """Check that no text reaches the module, and that the module need not return text.

    Raises:
        ModelLoadError: a tensor of the specification is BYTES, and no hook takes its place.

    Inference thread.
    """
    for tensors, hook, name in (
        (spec.inputs, preprocess, "preprocess"),
        (spec.outputs, postprocess, "postprocess"),
    ):
        texts = [tensor.name for tensor in tensors if tensor.datatype.name == "BYTES"]
        if texts and hook is None:
            raise ModelLoadError(
                f"{texts[0]!r}: expected a dtype that PyTorch has; got BYTES. Give a module of "
                f"format python a `{name}` that works with the text"
            )


def _in_order(module: Callable[..., Any], spec: ModelSpec) -> Call:
    """Return what calls `module` with inputs, given by their names, in the order of `spec`.

    In the place of an optional input that is left out stands None. Knows nothing of the model: an
    object that held on to itself would keep its memory until a collection.

    Any thread.
    """
    names = [tensor.name for tensor in spec.inputs]

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        return module(*[tensors.get(name) for name in names])

    return call


def _weights_bytes(module: Callable[..., Any]) -> int:
    """Return the bytes of the weights of `module`. Inference thread."""
    if not isinstance(module, torch.nn.Module):
        return 0
    return sum(each.nbytes for each in (*module.parameters(), *module.buffers()))


def choose_device(setting: str) -> str:
    """Return the device for a `setting`: `auto` is CUDA where there is one. Any thread."""
    if setting == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if setting == "cuda" else setting


def present_device(setting: str) -> str:
    """Return the device for a `setting`. Raises ModelLoadError: there is none. Any thread."""
    device = choose_device(setting)
    count = torch.cuda.device_count()
    if device != "cpu" and int(device.partition(":")[2]) >= count:
        raise ModelLoadError(
            f"device: expected one of the GPUs that PyTorch {torch.__version__} finds here, "
            f"{count} in all; got {setting!r}. `device: auto` takes the CPU where there is no GPU; "
            "`batcher doctor` says more"
        )
    return device
