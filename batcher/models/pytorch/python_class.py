"""Format `python`: a class in a module beside `model.yaml`, or in an installed module.

`class: code:Model` in `model.yaml` names the module `code` and the class `Model`. In the place of a
class there may be a function that makes the model, such as `torchvision.models:resnet18`. The kind
of class decides how the class is used; of a function that is the class of the object it returns:

                   `torch.nn.Module`               any class with `predict`
    made           without arguments               without arguments
    prepared by    its weights, if there are any   its method `load(device)`, if there is one
    called as      forward, see `input_order.py`   predict, see `predict_calls.py`
    takes          tensors                         a mapping of name to array
    returns        what `result_names.py` names    what `result_names.py` names

Both kinds may have the hooks `preprocess` and `postprocess`, and rows of inputs as the attribute
`sample`, which warm-up runs. Both may also return an output as a
list of rows, with an exception in the place of a row that failed: only that row's request fails.

A loaded model owns the names of its modules, for as long as `version_code` says. So two models may
hold files of the same name, and a model that is loaded again is read again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.error_text import brief_names
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ModelLoadError
from batcher.models.declaring import Declaration, declaration_of, sample_attribute
from batcher.models.file_facts import own_copy
from batcher.models.lacking import lacking_inputs
from batcher.models.output_arrays import output_arrays
from batcher.models.plain_calls import check_load, check_methods, check_returned, note_of_both
from batcher.models.predict_calls import predict_of
from batcher.models.protocol import Arrays, FreshMemory, Model, PlainModel, Progress
from batcher.models.pytorch.autograd import batch_mode
from batcher.models.pytorch.factories import factory_of, nothing_named
from batcher.models.pytorch.input_order import arranged_for, parameters_of_python
from batcher.models.pytorch.module import TorchModule
from batcher.models.pytorch.tensors import copy_each, to_host, without_values
from batcher.models.pytorch.training import training_note
from batcher.models.result_names import named_outputs
from batcher.models.unused_settings import unused_note
from batcher.models.version_code.importing import import_from_folder, is_in_folder


class PythonModule(TorchModule):
    """A `torch.nn.Module` from Python source.

    Attributes:
        make: makes the module, without its weights.
    """

    own_buffers = True  # `forward` may keep its inputs, for instance to compare the next ones

    def __init__(
        self, definition: ModelDefinition, settings: ModelSettings, factory: Callable[[], Any]
    ) -> None:
        """Remember what to load; `factory` is the class. Any thread."""
        super().__init__(definition, settings)
        self.make = factory

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Make the module and give it its weights. Inference thread."""
        module = self._ready(device)
        check_methods(module)
        forward = getattr(getattr(module, "forward", None), "__func__", None)
        own_call = type(module).__call__ is not torch.nn.Module.__call__
        if forward is torch.nn.Module.forward and not own_call:
            raise ModelLoadError(
                f"{type(module).__name__}: expected a method `forward`, which PyTorch calls with a "
                "batch; got none. A class with `predict` needs no torch.nn.Module as its base"
            )
        hook = getattr(module, "preprocess", None)
        if self._settings.preprocess_on == "device":
            self.device_hook = hook
        else:
            self.preprocess = hook
        self.postprocess = getattr(module, "postprocess", None)
        self.author = module
        self.sample = sample_attribute(module) if self.sample is None else self.sample
        self.notes = note_of_both(module, "forward")
        # What a hook makes has names of its own, which decide (`prepared_inputs.py`).
        return module if hook is not None else self._called(module)

    def source(self, device: torch.device) -> torch.nn.Module:
        """Return the module with its weights, in evaluation mode, with the inputs in order.

        Any thread.
        """
        return self._called(self._ready(device))

    def training_note(self) -> str:
        """Return the note that parts of the module are in training mode. Inference thread."""
        return training_note(self._module)

    def _called(self, module: torch.nn.Module) -> torch.nn.Module:
        """Return `module` as it is called with the inputs in order. Raises ModelLoadError.

        Any thread.
        """
        arranged, note = arranged_for(self._definition, module, parameters_of_python(module))
        self.notes = (*note_of_both(module, "forward"), *((note,) if note else ()))
        return self.precision.around(arranged, self.spec)

    def _ready(self, device: torch.device) -> torch.nn.Module:
        """Return the module with its weights, in evaluation mode. Any thread."""
        module: torch.nn.Module = self.make()
        if self._definition.weights is not None:
            weights = _weights(self._definition.weights, self._settings.trusted)
            _give(module, weights)
        _check_values(module)
        with suppress(NotImplementedError):  # a module that was exported is in its mode for good
            module.eval()
        return self.precision.with_weights(module.to(device))


class PythonModel(PlainModel, FreshMemory):
    """An object with `predict`, of any class.

    Attributes:
        make: makes the object, not loaded.
        call: calls its `predict` with all inputs; there once the object is loaded.
    """

    call: Callable[[Arrays], Any]
    own_buffers = True  # `predict` may keep its inputs, for instance to compare the next ones

    def __init__(
        self, definition: ModelDefinition, settings: ModelSettings, factory: Callable[[], Any]
    ) -> None:
        """Remember what to load; `factory` is the class, and makes nothing yet. Any thread."""
        super().__init__(definition, settings)
        self._gradients = definition.gradients
        self.make = factory
        self._model: Any = None

    def load(self, device: str) -> None:
        """Make the object, and call its `load` if it has one. Inference thread."""
        # PyTorch keeps this number for each thread: it must be set on the thread that predicts.
        if self._settings.torch_threads is not None:
            torch.set_num_threads(self._settings.torch_threads)
        self._model = self.make()
        check_methods(self._model)
        self.notes = (*note_of_both(self._model, "predict"), *_notes_of_bits(self.spec))
        self.notes += tuple(filter(None, [unused_note(self._settings, "a class with predict")]))
        if hasattr(self._model, "load"):
            check_load(self._model.load, self._model)
            check_returned(self._model.load(device), "load")
        # Only now: `load` may have set it, or what a property `predict` needs.
        names = [tensor.name for tensor in self.spec.inputs]
        self.call = predict_of(self._model, names, lacking_inputs(self.spec))
        self.preprocess = getattr(self._model, "preprocess", None)
        self.postprocess = getattr(self._model, "postprocess", None)
        self.author = self._model
        self.sample = sample_attribute(self._model) if self.sample is None else self.sample

    def compile(self, progress: Progress) -> None:
        """Refuse: a compiler cannot know what `predict` of any class does.

        Raises:
            ModelLoadError: always.

        Inference thread.
        """
        raise ModelLoadError("expected a torch.nn.Module to compile; got a class with predict")

    def operators(self, inputs: Arrays) -> int:
        """Return 0: the number is unknown. Inference thread."""
        return 0

    def training_note(self) -> str:
        """Return the note that parts of the object are in training mode. Inference thread."""
        return training_note(self._model)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Call `predict` of the object; tensors become arrays, exceptions in lists failed rows.

        Inference thread.
        """
        is_raw = self.postprocess is not None
        with batch_mode(self._gradients):
            outputs, left_out = named_outputs(self.call(inputs), self.spec, is_raw)
            on_host: dict[str, Any] = {}
            try:
                copy_each(outputs, to_host, on_host)
            finally:
                if torch.cuda.is_initialized():
                    _wait_for_copies(outputs.values())
            return output_arrays(on_host, self.spec, left_out, is_raw)


def _wait_for_copies(values: Iterable[Any]) -> None:
    """Wait for the streams of this thread that copy `values` to the host. Inference thread.

    Not for their devices: that fails while another thread captures a graph.
    """
    tensors = (value for value in values if isinstance(value, torch.Tensor))
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        torch.cuda.current_stream(device).synchronize()


def make(definition: ModelDefinition, settings: ModelSettings) -> Model:
    """Return the model of the class that `definition` names, not loaded yet.

    A function is called here, since only its result tells the kind.

    Raises:
        ModelLoadError: there is no such class or function, or what it makes is neither a module
            nor has `predict`.

    Any thread.
    """
    module_name, _, name = definition.entry.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        _refuse_standard(definition, module_name)
    module = import_from_folder(definition, module_name)
    maker = getattr(module, name, None)
    if maker is None:
        raise nothing_named(definition.entry, vars(module))
    return made_by(maker, definition, settings)


def _refuse_standard(definition: ModelDefinition, module: str) -> None:
    """Raise ModelLoadError if no file beside the model is `module`, which Python has too."""
    if not is_in_folder(definition, module):
        raise ModelLoadError(
            f"class {definition.entry}: expected a file {module.replace('.', '/')}.py beside "
            f"model.yaml; there is none, and the module {module} of Python itself has no models"
        )


def made_by(maker: Any, definition: ModelDefinition, settings: ModelSettings) -> Model:
    """Return the model that the class or function `maker` makes, as `make` does. Any thread."""
    kind, factory = factory_of(maker, definition.entry)
    made = PythonModule if issubclass(kind, torch.nn.Module) else PythonModel
    model: PythonModule | PythonModel = made(definition, settings, factory)
    model.sample = (declaration_of(maker) or Declaration()).sample
    return model


def _notes_of_bits(spec: ModelSpec) -> list[str]:
    """Return a note of the inputs that NumPy has no dtype for. Any thread."""
    names = [repr(tensor.name) for tensor in spec.inputs if tensor.datatype.name == "BF16"]
    if not names:
        return []
    return [
        f"NumPy has no BF16, so hooks and predict get {', '.join(names)} as the bits, uint16: "
        "`torch.from_numpy(array).view(torch.bfloat16)` reads them"
    ]


def _weights(file: Path, trusted: bool) -> dict[str, Any]:
    """Return the weights in `file` by their names; a pickle is read only if `trusted`.

    Raises:
        ModelLoadError: the file is a pickle, and the model is not trusted, or it holds anything
            else than weights.

    Any thread.
    """
    if file.suffix == ".safetensors":
        with own_copy(file) as copy:
            return load_file(copy)
    if not trusted:
        raise ModelLoadError(
            f"expected weights as .safetensors; got {file.name}, a pickle, which can run any code "
            "when it is read. Convert it, or set `trusted: true` for this model"
        )
    weights: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)
    _check_weights(weights, file)
    return weights


def _check_weights(weights: Any, file: Path) -> None:
    """Raise ModelLoadError if `weights`, from `file`, are a module or a checkpoint. Any thread."""
    got = type(weights).__name__
    if isinstance(weights, Mapping):
        # A module may keep values of any kind under names of this ending.
        inner = [name for name in weights if not str(name).endswith("_extra_state")]
        inner = [name for name in inner if isinstance(weights[name], Mapping)]
        got = f"a mapping in {brief_names(inner)}"
        if not inner:
            return
    raise ModelLoadError(
        f"weights: expected tensors by the names that the module has for them in {file.name}, as "
        f"`torch.save(module.state_dict(), ...)` writes; got {got}"
    )


def _give(module: torch.nn.Module, weights: dict[str, Any]) -> None:
    """Give `module` its `weights`. Any thread.

    A module that was made on the device `meta` has nothing to copy them into. So it takes the
    tensors themselves, in its own dtypes.
    """
    if not any(each.is_meta for each in module.parameters()):
        module.load_state_dict(weights)
        return
    own = {name: each for name, each in module.state_dict().items() if torch.is_tensor(each)}
    taken = {
        name: each.to(own[name].dtype) if name in own and torch.is_tensor(each) else each
        for name, each in weights.items()
    }
    module.load_state_dict(taken, assign=True)


def _check_values(module: torch.nn.Module) -> None:
    """Check that parameters and buffers of `module` hold values. Raises ModelLoadError. Any thread.

    On the device `meta` a module is made without memory, to be given its weights later.
    """
    found = [*module.named_parameters(), *module.named_buffers()]
    names = [name for name, value in found if without_values(value)]
    if names:
        raise ModelLoadError(
            f"{type(module).__name__}: expected parameters with values; got {brief_names(names)} "
            "without any, on the device meta or of FakeTensorMode: name their file as `weights` in "
            "model.yaml, or load them in `__init__`; `load_state_dict(…, assign=True)` puts them "
            "in place"
        )


MODEL = make
