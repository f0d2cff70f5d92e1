"""How the arrays that `preprocess` of a module makes become the arguments of `forward`.

`model.yaml` says what clients send. A hook may turn that into other arrays: of other dtypes and
shapes, under other names, more or fewer of them. So of a module with `preprocess` the names that
the hook gives decide, by the rule of `input_order.py`:

    names of the hook's arrays                        forward is called
    all are parameters of forward                     by name
    the inputs of model.yaml, no parameter's name     in the order of model.yaml
    others, no parameter's name                       in the hook's order
    some are parameters, one at another's place       not at all: the batch is refused
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from batcher.core.spec import ModelSpec
from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.pytorch.input_order import arrange, parameters_of_python


class PreparedInputs:
    """Calls a module with the arrays that its `preprocess` has made. Inference thread."""

    def __init__(
        self,
        module: torch.nn.Module,
        spec: ModelSpec,
        wrapped: Callable[[torch.nn.Module, ModelSpec], Callable[..., Any]],
    ) -> None:
        """Read the parameters of `module`; `spec` names the inputs of its clients.

        `wrapped` returns a module of `spec`, whose arguments are in order, as it is called.
        """
        self._module = module
        self._wrapped = wrapped
        self._spec = spec
        self._inputs = [tensor.name for tensor in spec.inputs]
        self._parameters = parameters_of_python(module)
        self._names: tuple[str, ...] = ()
        self._order: list[str] = []
        self._arranged: Callable[..., Any] = module

    def call(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Call the module with `tensors`.

        Raises:
            ModelContractError: the names leave it open which array is which argument.

        Inference thread.
        """
        names = tuple(tensors)
        # A hook gives the same names each time, so the way of the call is worked out once.
        if names != self._names:
            self._arrange(names)
        return self._arranged(*(tensors[name] for name in self._order))

    def _arrange(self, names: tuple[str, ...]) -> None:
        """Work out how the module is called with arrays of `names`. Inference thread."""
        self._order = self._inputs if set(names) == set(self._inputs) else list(names)
        try:
            arranged, _ = arrange(self._module, self._parameters, self._order, "preprocess gives")
        except ModelLoadError as err:
            raise ModelContractError(f"model {self._spec.name!r}: {err}") from err
        self._arranged = self._wrapped(arranged, self._spec)
        self._names = names


class OnDevice:
    """Runs `preprocess` of a module on a whole batch of tensors, on the device: `preprocess_on`."""

    def __init__(
        self, hook: Callable[[dict[str, torch.Tensor]], Any], call: Callable[..., Any], model: str
    ) -> None:
        """Hand what `hook` makes to `call`, which calls the module; `model` is its name."""
        self._hook = hook
        self._call = call
        self._model = model

    def call(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Call the module with what the hook makes of `tensors`.

        Raises:
            ModelContractError: that is not a mapping of tensors of as many rows.

        Inference thread.
        """
        rows = len(next(iter(tensors.values())))
        made = self._hook(tensors)
        if not isinstance(made, Mapping) or not made:
            raise self._wrong(rows, type(made).__name__)
        for name, value in made.items():
            if not isinstance(value, torch.Tensor):
                raise self._wrong(rows, f"{name!r}, of class {type(value).__name__}")
            if not value.ndim or len(value) != rows:
                raise self._wrong(rows, f"{name!r} of shape {list(value.shape)}")
        return self._call(dict(made))

    def _wrong(self, rows: int, got: str) -> ModelContractError:
        return ModelContractError(
            f"model {self._model!r}: preprocess: expected tensors of {rows} rows by their names, "
            f"since it runs on the device, for the whole batch (`preprocess_on`); got {got}"
        )
