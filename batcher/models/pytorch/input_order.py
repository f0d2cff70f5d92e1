"""In which order a module is called with the inputs of `model.yaml`.

Two inputs of one dtype and shape that change places give wrong answers and no error. So where the
names in `model.yaml` are names of the parameters of `forward`, the names decide:

    names in model.yaml                     forward is called
    all are parameters                      by name, whatever the order in model.yaml
    forward takes any names, `**inputs`     by name
    none is a parameter                     in the order of model.yaml; a note shows both orders
    some are, each at its parameter's place in the order of model.yaml; a note shows both orders
    some are, one at another's place        not at all: the load is refused with both orders

A `forward` of unknown parameters, such as `*inputs`, is called in the order of `model.yaml`; a note
shows this order.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from batcher.core.spec import ModelSpec
from batcher.errors import ModelLoadError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameters(NamedTuple):
    """What `forward` of a module takes.

    Attributes:
        positional: names of the parameters that can be passed by place, in order.
        by_keyword: names of the parameters that can be passed by name.
        required: names of the parameters without a default.
        is_open: whether `forward` takes any number of further arguments by place.
        is_mapping: whether `forward` takes nothing but arguments of any name.
    """

    positional: tuple[str, ...]
    by_keyword: frozenset[str]
    required: tuple[str, ...]
    is_open: bool = False
    is_mapping: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        rest = [name for name in self.required if name not in self.positional]
        others = sorted(self.by_keyword - {*self.positional, *rest})
        return (*self.positional, *rest, *others)

    def __str__(self) -> str:
        """Return the parameters as `forward` declares them. Any thread."""
        return f"forward({', '.join(self.names)})"


class Arranged(torch.nn.Module):
    """A module that is called with the inputs in the order of `model.yaml`."""

    def __init__(
        self, module: torch.nn.Module, by_place: Sequence[int], by_name: dict[str, int]
    ) -> None:
        """Call `module` with inputs by place, and with others by name, each given by its index.

        Any thread.
        """
        super().__init__()
        self._module = module
        self._by_place = tuple(by_place)
        self._by_name = tuple(by_name.items())
        self.eval()

    def forward(self, *inputs: torch.Tensor | None) -> Any:
        """Return what the module returns for `inputs`, where None is one that is left out.

        Inference thread.
        """
        by_place = [inputs[index] for index in self._by_place]
        while by_place and by_place[-1] is None:
            by_place.pop()
        by_name = {name: inputs[index] for name, index in self._by_name}
        given = {name: value for name, value in by_name.items() if value is not None}
        return self._module(*by_place, **given)


def arrange(
    module: torch.nn.Module,
    parameters: Parameters,
    names: Sequence[str],
    listing: str = "model.yaml lists",
) -> tuple[torch.nn.Module, str]:
    """Return `module` as it is called with inputs called `names`, in this order, and a note.

    The note says what the operator should know of the order; empty if there is nothing. `listing`
    says in error texts where `names` come from.

    Raises:
        ModelLoadError: names and places disagree; the message shows both orders.

    Any thread.
    """
    if parameters.is_mapping:
        return Arranged(module, (), {name: place for place, name in enumerate(names)}), ""
    if not parameters.names:
        note = f"the order of inputs counts: forward gets {', '.join(names)}, in this order"
        return module, note if len(names) > 1 else ""
    if set(names) <= set(parameters.names):
        return _by_name(module, parameters, names, listing)
    return module, _order_note(parameters, names, listing)


def _order_note(parameters: Parameters, names: Sequence[str], listing: str) -> str:
    """Return what the operator should know of a call by place. Raises as `arrange` does.

    Any thread.
    """
    if not _agree(parameters, names) or not _fits(parameters, len(names)):
        raise ModelLoadError(
            f"expected the inputs that the module takes, {parameters}; {listing} "
            f"{', '.join(names)}. Give each input the name that forward has for it"
        )
    note = f"the order of inputs counts: {parameters} gets {', '.join(names)}, in this order"
    return note if len(names) > 1 else ""


def arranged_for(
    spec: ModelSpec, module: torch.nn.Module, parameters: Parameters
) -> tuple[torch.nn.Module, str]:
    """Return `module` as it is called with the inputs of `spec`, in order, and a note.

    In the place of an input that is left out stands None. Raises as `arrange` does. Any thread.
    """
    arranged, note = arrange(module, parameters, [tensor.name for tensor in spec.inputs])
    if any(tensor.may_lack for tensor in spec.inputs) and arranged is module:
        arranged = Arranged(module, range(len(spec.inputs)), {})
    return arranged, note


def parameters_of_python(module: torch.nn.Module) -> Parameters:
    """Return what `forward` of a module in Python takes; nothing if Python cannot tell.

    Any thread.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return Parameters((), frozenset(), (), True)
    listed = list(signature.parameters.values())
    named = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    kinds = {each.kind for each in listed}
    return Parameters(
        tuple(each.name for each in listed if each.kind in _POSITIONAL),
        frozenset(each.name for each in listed if each.kind in named[1:]),
        tuple(each.name for each in listed if each.kind in named and each.default is each.empty),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        kinds == {inspect.Parameter.VAR_KEYWORD},
    )


def parameters_of_script(module: Any) -> Parameters:
    """Return what `forward` of a scripted or traced module takes. Any thread."""
    arguments = module.forward.schema.arguments[1:]  # the first is the module itself
    names = tuple(argument.name for argument in arguments)
    required = tuple(each.name for each in arguments if not each.has_default_value())
    return Parameters(names, frozenset(names), required)


def _by_name(
    module: torch.nn.Module, parameters: Parameters, names: Sequence[str], listing: str
) -> tuple[torch.nn.Module, str]:
    """Return `module` called by name with inputs in the order of `names`, and a note.

    Raises:
        ModelLoadError: a parameter without a default is left out.

    Any thread.
    """
    if missing := [name for name in parameters.required if name not in names]:
        raise ModelLoadError(
            f"expected all inputs that the module takes, {parameters}; {listing} "
            f"{', '.join(names)}, and {', '.join(missing)} is missing"
        )
    if tuple(names) == parameters.positional[: len(names)]:
        return module, ""
    places = {name: index for index, name in enumerate(names)}
    by_place = []
    for name in parameters.positional:
        if name not in places:
            break
        by_place.append(places.pop(name))
    note = f"inputs go by their names to {parameters}; model.yaml lists {', '.join(names)}"
    return Arranged(module, by_place, places), note


def _agree(parameters: Parameters, names: Sequence[str]) -> bool:
    """Return whether each name that is a parameter stands at its parameter's place. Any thread."""
    known = {*parameters.positional, *parameters.by_keyword}
    return all(
        name not in known or parameters.positional[place : place + 1] == (name,)
        for place, name in enumerate(names)
    )


def _fits(parameters: Parameters, count: int) -> bool:
    """Return whether `forward` can be called with `count` arguments by place. Any thread."""
    if any(name not in parameters.positional[:count] for name in parameters.required):
        return False
    return parameters.is_open or count <= len(parameters.positional)
