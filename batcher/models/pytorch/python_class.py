"""Format `python`: a class in a module beside `model.yaml`, or in an installed one.

A class that is a `torch.nn.Module` is made without arguments and given its weights; its `forward`
takes the inputs in order. Any other class has `predict(inputs) -> outputs`, both mappings of name
to array, and may have `load(device)`, `preprocess` and `postprocess`. It may give an output as a
list of rows, with an exception in the place of a row that failed: only that row's request fails.
Modules of a version folder live in a package of their own, so that two models, or two versions of
one, may hold files of the same name; they import each other relatively (`from .network import
Net`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.protocol import Arrays, Hook, Model, PartialOutputs
from batcher.models.pytorch.module import TorchModule
from batcher.models.pytorch.tensors import by_name, to_array, to_host
from batcher.models.row_errors import take_errors

_LOADS = count()
_RECENT: dict[str, dict[int, tuple[ModelDefinition, list[str]]]] = {}
"""The last two definitions of each version by their identity, with the packages that their instances live in.

Two may be loaded at once, from other files. The definition is kept so that no other is taken for
it.
"""


class PythonModule(TorchModule):
    """A `torch.nn.Module` from Python source; `make` makes it, without its weights."""

    def __init__(
        self, definition: ModelDefinition, settings: ModelSettings, factory: Callable[[], Any]
    ) -> None:
        """Remember the class, `factory`, besides definition and settings."""
        super().__init__(definition, settings)
        self.make = factory

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Make the module and give it its weights. Inference thread."""
        module = self.source(device)
        self.preprocess = getattr(module, "preprocess", None)
        self.postprocess = getattr(module, "postprocess", None)
        return module

    def source(self, device: torch.device) -> torch.nn.Module:
        """Return the module with its weights. Any thread."""
        module = self.make()
        if self._definition.weights is not None:
            module.load_state_dict(_weights(self._definition.weights, self._settings.trusted))
        ready: torch.nn.Module = module.eval().to(device)
        return ready


class PythonModel:
    """Any object with `predict`; `make` makes it."""

    one_call = False
    pinned = False
    preprocess: Hook | None = None
    postprocess: Hook | None = None

    def __init__(
        self, definition: ModelDefinition, settings: ModelSettings, factory: Callable[[], Any]
    ) -> None:
        """Remember the class, `factory`; it is made when it is loaded."""
        self.spec = definition.spec
        self._settings = settings
        self._texts = {
            tensor.name for tensor in definition.spec.outputs if tensor.datatype.name == "BYTES"
        }
        self.make = factory
        self._model: Any = None

    def load(self, device: str) -> None:
        """Make the object, and let it load if it wants to. Inference thread."""
        if self._settings.torch_threads is not None:
            torch.set_num_threads(self._settings.torch_threads)
        self._model = self.make()
        if hasattr(self._model, "load"):
            self._model.load(device)
        self.preprocess = getattr(self._model, "preprocess", None)
        self.postprocess = getattr(self._model, "postprocess", None)

    def compile(self, progress: Callable[[str], None]) -> None:
        """Refuse: what a class does in `predict` is not for a compiler to know.

        Inference thread.
        """
        raise ModelLoadError("expected a torch.nn.Module to compile; got a class with predict")

    def operators(self) -> int:
        """Return 0: it is not known. Inference thread."""
        return 0

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return fresh memory. Inference thread."""
        return np.empty(shape, dtype)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Call the object's `predict`; tensors become arrays, exceptions in a list failed rows.

        Inference thread.
        """
        with torch.inference_mode():
            outputs = by_name(self._model.predict(inputs), self.spec)
            failed = take_errors(outputs, self.spec)
            for name, value in outputs.items():
                if isinstance(value, list) and name in self._texts:
                    value = outputs[name] = np.array(
                        value, object
                    )  # NumPy's own texts end at their last byte that is not 0
                elif (
                    isinstance(value, list)
                    and value
                    and all(isinstance(row, torch.Tensor) for row in value)
                ):
                    value = outputs[name] = torch.stack(value)
                if isinstance(value, torch.Tensor) and value.device.type == "cuda":
                    outputs[name] = to_host(value)
                    torch.cuda.synchronize()
            arrays = {name: to_array(value) for name, value in outputs.items()}
        return PartialOutputs(arrays, failed) if failed else arrays


def make(definition: ModelDefinition, settings: ModelSettings) -> Model:
    """Return the model behind `module:Class`. Inference thread.

    Raises:
        ModelLoadError: there is no such class, or it is neither a module nor has `predict`.
    """
    module_name, _, class_name = definition.entry.partition(":")
    found = getattr(_module(definition, module_name), class_name, None)
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        return PythonModule(definition, settings, found)
    if not callable(getattr(found, "predict", None)):
        raise ModelLoadError(
            f"expected a torch.nn.Module or a class with predict; got {definition.entry}"
        )
    assert callable(found)
    return PythonModel(definition, settings, found)


def _module(definition: ModelDefinition, name: str) -> ModuleType:
    beside = definition.folder.joinpath(*name.split("."))
    if not (beside.with_suffix(".py").is_file() or beside.joinpath("__init__.py").is_file()):
        return import_module(name)
    title = f"{definition.spec.name.encode().hex()}_{definition.spec.version}"
    package = ModuleType(f"_batcher_model_{title}_{next(_LOADS)}")
    package.__path__ = [str(definition.folder)]
    recent = _RECENT.setdefault(title, {})
    recent.setdefault(id(definition), (definition, []))[1].append(package.__name__)
    for key in list(recent)[:-2]:  # one that serves may import until it is replaced
        _forget(recent.pop(key, (definition, []))[1])
    sys.modules[package.__name__] = package
    return import_module(f"{package.__name__}.{name}")


def _forget(packages: list[str]) -> None:
    for package in packages:
        for name in [name for name in list(sys.modules) if f"{name}.".startswith(f"{package}.")]:
            sys.modules.pop(name, None)


def _weights(file: Path, trusted: bool) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return load_file(file)
    if not trusted:
        raise ModelLoadError(
            f"expected weights as .safetensors; got {file.name}, a pickle, which can run any code "
            "when it is read. "
            "Convert it, or set `trusted: true` for this model",
        )
    weights: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)
    return weights


MODEL = make
