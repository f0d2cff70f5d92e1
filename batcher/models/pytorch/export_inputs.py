"""How the inputs of a model reach the arguments of its exported program.

A program is called as the module was called when it was exported: with arguments by place, by
keyword, and in containers. Each tensor among them has a name:

    argument                        name of the tensor
    forward(x), by place            x
    forward(x=...), by keyword      x
    forward({"x": ...})             the key, x
    forward([a, b])                 of the place in the program: inputs_0, inputs_1

Where the names are those of `model.yaml`, inputs go by name, whatever their order. Where none of
the names is, inputs go by place. Any mixture would be a guess, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from batcher.errors import ModelLoadError


class Placing(NamedTuple):
    """Where the inputs of a model go among the arguments of a program.

    Attributes:
        places: index of each input, in the order of `model.yaml`, among all leaves.
        note: what the operator should know of the order; empty if there is nothing.
    """

    places: tuple[int, ...]
    note: str


class PlacedProgram(torch.nn.Module):
    """The module of a program, called with the inputs of a model in the order of `model.yaml`."""

    def __init__(self, program: torch.export.ExportedProgram, places: Sequence[int]) -> None:
        """Make the module of `program`; `places` are indices of the inputs among all leaves.

        Any thread.
        """
        super().__init__()
        self._module = program.module()
        self._leaves = list(_values(program))
        self._layout = _layout(program)
        self._places = tuple(places)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the program returns for `inputs`. Inference thread."""
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, inputs, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self._layout)
        return self._module(*args, **kwargs)


def place_inputs(
    program: torch.export.ExportedProgram, names: Sequence[str], listing: str
) -> Placing:
    """Return where the inputs called `names` go among the arguments of `program`.

    `listing` says in texts where `names` come from. Raises ModelLoadError: the program takes other
    inputs; the message shows its arguments. Any thread.
    """
    leaves = _tensor_names(program)
    taken = list(leaves.values())
    signature = f"forward({', '.join(taken)})"
    by_place = len(set(taken)) < len(taken) or not set(names) & set(taken)
    if len(names) == len(taken) and (by_place or _agree(names, taken)):
        several = len(names) > 1 and list(names) != taken
        note = f"the order of inputs counts: {signature} gets {', '.join(names)}, in this order"
        return Placing(tuple(leaves), note if several else "")
    if set(names) != set(taken) or len(names) != len(taken):
        raise ModelLoadError(
            f"expected the inputs that the exported program takes, {signature}; {listing} "
            f"{', '.join(names)}. Give each input the name that the program has for it"
        )
    places = {name: place for place, name in leaves.items()}
    note = f"inputs go by their names to {signature}; {listing} {', '.join(names)}"
    return Placing(tuple(places[name] for name in names), note if list(names) != taken else "")


def input_names(program: torch.export.ExportedProgram) -> list[tuple[str, str]]:
    """Return for each tensor that `program` takes its own name, and the one in the program.

    Any thread.
    """
    values = _values(program)
    return [(name, str(values[place])) for place, name in _tensor_names(program).items()]


def takes_in_order(program: torch.export.ExportedProgram, places: Sequence[int]) -> bool:
    """Return whether the program can be called with the inputs as they are. Any thread."""
    arguments, keywords = pytree.tree_unflatten(list(_values(program)), _layout(program))
    are_leaves = all(pytree.tree_leaves(argument) == [argument] for argument in arguments)
    return not keywords and are_leaves and list(places) == list(range(len(arguments)))


def _agree(names: Sequence[str], taken: Sequence[str]) -> bool:
    """Return whether each of `names` that is among `taken` stands at the same place in both.

    Any thread.
    """
    return all(
        name == own for name, own in zip(names, taken, strict=True) if name in taken or own in names
    )


def _layout(program: torch.export.ExportedProgram) -> pytree.TreeSpec:
    """Return how the leaves make arguments and keywords. Any thread."""
    layout: pytree.TreeSpec = program.call_spec.in_spec
    return layout


def _values(program: torch.export.ExportedProgram) -> tuple[Any, ...]:
    """Return for each leaf the name of its tensor in the program, or the constant. Any thread."""
    return tuple(program.graph_signature.user_inputs)


def _tensor_names(program: torch.export.ExportedProgram) -> dict[int, str]:
    """Return the names of the leaves that are tensors, by their places. Any thread."""
    constants = _constants(program)
    return {
        place: _own_name(path) or str(value)
        for place, (value, path) in enumerate(zip(_values(program), _paths(program), strict=True))
        if place not in constants
    }


def _constants(program: torch.export.ExportedProgram) -> set[int]:
    """Return the places of leaves that are constants, such as a text or None. Any thread."""
    kinds = torch.export.graph_signature
    arguments = [
        spec.arg
        for spec in program.graph_signature.input_specs
        if spec.kind is kinds.InputKind.USER_INPUT
    ]
    return {
        place
        for place, argument in enumerate(arguments)
        if not isinstance(argument, kinds.TensorArgument)
    }


def _paths(program: torch.export.ExportedProgram) -> list[tuple[str, tuple[Any, ...]]]:
    """Return for each leaf the argument that holds it, and its path in there. Any thread."""
    layout = _layout(program)
    arguments, keywords = pytree.tree_unflatten(range(layout.num_leaves), layout)
    named = program.module_call_graph[0].signature
    names = list(named.forward_arg_names or ()) if named is not None else []
    names += [""] * (len(arguments) - len(names))
    found: dict[int, tuple[str, tuple[Any, ...]]] = {}
    for name, argument in [*zip(names, arguments, strict=False), *keywords.items()]:
        for path, place in pytree.tree_flatten_with_path(argument)[0]:
            found[place] = (name, path)
    return [found[place] for place in range(layout.num_leaves)]


def _own_name(place: tuple[str, tuple[Any, ...]]) -> str:
    """Return the name of a leaf: of the argument, or its key; empty if it has none. Any thread."""
    argument, path = place
    if not path:
        return argument
    key = getattr(path[-1], "key", None)
    return key if isinstance(key, str) else ""
