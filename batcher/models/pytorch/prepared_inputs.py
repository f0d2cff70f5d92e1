"""How the arrays that `preprocess` of a module makes become the arguments of `forward`.

`model.yaml` says what clients send. A hook may turn that into other arrays: of other dtypes and
shapes, under other names, more or fewer of them. So of a module with `preprocess` the names that
the hook gives decide:

    names of the hook's arrays                        forward is called
    all are parameters of forward                     by name
    the inputs of model.yaml, no parameter's name     in the order of model.yaml
    others, no parameter's name                       in the hook's order
    some are parameters and some are not              in that order, if it agrees with the names;
                                                      else the batch is refused
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from batcher.core.spec import ModelSpec
from batcher.errors import ModelContractError

_Tensors = dict[str, torch.Tensor]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class PreparedInputs:
    """Calls a module with the arrays that its `preprocess` has made. Inference thread."""

    def __init__(self, module: Callable[..., Any], spec: ModelSpec) -> None:
        """Read the parameters of `module`; `spec` names the inputs of its clients."""
        self._module = module
        self._model = spec.name
        self._inputs = [tensor.name for tensor in spec.inputs]
        self._parameters = _parameters(module)
        self._names: tuple[str, ...] = ()
        self._by_name = False
        self._order: Sequence[str] = ()

    def call(self, tensors: _Tensors) -> Any:
        """Call the module with `tensors`.

        Raises:
            ModelContractError: the names leave it open which array is which argument.

        Inference thread.
        """
        names = tuple(tensors)
        # A hook gives the same names each time, so the way of the call is worked out once.
        if names != self._names:
            self._arrange(names)
        if self._by_name:
            return self._module(**tensors)
        return self._module(*(tensors[name] for name in self._order))

    def _arrange(self, names: tuple[str, ...]) -> None:
        """Work out how the module is called with arrays of `names`. Inference thread."""
        known = {parameter.name: parameter for parameter in self._parameters}
        self._by_name = all(
            name in known and known[name].kind is not inspect.Parameter.POSITIONAL_ONLY
            for name in names
        )
        is_specified = set(names) == set(self._inputs)
        self._order = self._inputs if is_specified and not known.keys() & names else names
        places = [parameter.name for parameter in self._parameters if parameter.kind in _POSITIONAL]
        if not self._by_name and any(
            name in known and places[at : at + 1] != [name] for at, name in enumerate(self._order)
        ):
            raise ModelContractError(
                f"model {self._model!r}: preprocess: expected the names of forward's parameters, "
                f"{', '.join(known)}; got {', '.join(names)}"
            )
        self._names = names


def _parameters(module: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of `module` that have names; none if Python cannot tell. Any thread."""
    try:
        signature = inspect.signature(getattr(module, "forward", module))
    except (TypeError, ValueError):  # a callable of native code
        return []
    named = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    return [parameter for parameter in signature.parameters.values() if parameter.kind in named]
