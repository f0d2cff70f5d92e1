"""In which order a module is called with the inputs of `model.yaml`.

Two inputs of one dtype and shape that change places give wrong answers and no error. So where the
names in `model.yaml` are names of the parameters of `forward`, the names decide:

    names in model.yaml                     forward is called
    all are parameters                      by name, whatever the order in model.yaml
    forward takes any names, `**inputs`     by name
    forward takes one dict of tensors       with a dict of all inputs by name
    forward takes one list of tensors       with a list of several inputs, in the order of
                                            model.yaml; a note shows this order
    none is a parameter                     in the order of model.yaml; a note shows both orders
    some are, each at its parameter's place in the order of model.yaml; a note shows both orders
    some are, one at another's place        not at all: the load is refused with both orders

`forward` stands for `__call__` where the module's class has its own `__call__`, unless that one
takes `*args, **kwargs` and so passes all on. Wrappers of PyTorch's, such as `torch.compile` makes,
take what the module in them takes.

Whether a parameter is a dict or a list, its annotation says, or the type that TorchScript knows.

A `forward` of unknown parameters, such as `*inputs`, is called in the order of `model.yaml`; a note
shows this order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_origin, get_type_hints

import torch

from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from batcher.models.lacking import check_default, lacking_inputs

_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameters(NamedTuple):
    """What `forward` of a module takes.

    Attributes:
        positional: names of the parameters that can be passed by place, in order.
        by_keyword: names of the parameters that can be passed by name.
        required: names of the parameters without a default.
        is_open: whether `forward` takes any number of further arguments by place.
        is_mapping: whether `forward` takes nothing but arguments of any name.
        takes_others: whether `forward` takes arguments of any name besides.
        container: the class of the one parameter without a default, if that takes a dict, a list or
            a tuple of tensors; else None.
        method: the method whose parameters these are.
    """

    positional: tuple[str, ...]
    by_keyword: frozenset[str]
    required: tuple[str, ...]
    is_open: bool = False
    is_mapping: bool = False
    takes_others: bool = False
    container: type | None = None
    method: str = "forward"

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        rest = [name for name in self.required if name not in self.positional]
        others = sorted(self.by_keyword - {*self.positional, *rest})
        return (*self.positional, *rest, *others)

    def __str__(self) -> str:
        """Return the parameters as the method declares them. Any thread."""
        return f"{self.method}({', '.join(self.names)})"


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
        self.training = False  # `module` has its mode, which one from an export cannot change

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


class Contained(torch.nn.Module):
    """A module that is called with one dict, list or tuple of its inputs."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str], container: type) -> None:
        """Call `module` with a `container` of inputs called `names`. Any thread."""
        super().__init__()
        self._module = module
        self._names = tuple(names)
        self._container = container
        self.training = False

    def forward(self, *inputs: torch.Tensor | None) -> Any:
        """Return what the module returns for `inputs`; a dict lacks those that are None.

        Inference thread.
        """
        if self._container is not dict:
            return self._module(self._container(inputs))
        pairs = zip(self._names, inputs, strict=True)
        return self._module({name: value for name, value in pairs if value is not None})


def arrange(
    module: torch.nn.Module, parameters: Parameters, names: Sequence[str], listing: str
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
        return module, _counting(parameters.method, names)
    if parameters.container and _are_contained(parameters, names):
        note = "" if parameters.container is dict else _counting(str(parameters), names)
        return Contained(module, names, parameters.container), note
    if _are_names(parameters, names):
        return _by_name(module, parameters, names, listing)
    return module, _order_note(parameters, names, listing)


def _are_contained(parameters: Parameters, names: Sequence[str]) -> bool:
    """Return whether inputs called `names` are members of the one parameter. Any thread.

    A list for a single input may as well hold its rows, so nothing is said of that.
    """
    return not set(names) & set(parameters.names) and (
        parameters.container is dict or len(names) > 1
    )


def _are_names(parameters: Parameters, names: Sequence[str]) -> bool:
    """Return whether `names` are the names of parameters. Any thread."""
    others = set(names) - set(parameters.names)
    return not others or (
        # The names that a mapping gets are told from names of another order by those it requires.
        parameters.takes_others
        and bool(parameters.required)
        and set(parameters.required) <= set(names)
    )


def _order_note(parameters: Parameters, names: Sequence[str], listing: str) -> str:
    """Return what the operator should know of a call by place. Raises as `arrange` does.

    Any thread.
    """
    if not _agree(parameters, names) or not _fits(parameters, len(names)):
        raise ModelLoadError(
            f"expected the inputs that the module takes, {parameters}; {listing} "
            f"{', '.join(names)}. Give each input the name that {parameters.method} has for it"
            f"{_advice(parameters, names)}"
        )
    return _counting(str(parameters), names)


def _advice(parameters: Parameters, names: Sequence[str]) -> str:
    """Return what to write if one parameter stands for several inputs; mostly nothing."""
    if len(parameters.required) != 1 or len(names) < 2:
        return ""
    one, method = parameters.required[0], parameters.method
    return f"; if {one} is a dict of all, write `{one}: dict[str, torch.Tensor]` in {method}"


def _counting(method: str, names: Sequence[str]) -> str:
    """Return the note that `method` gets inputs called `names` by their order. Any thread."""
    if len(names) < 2:
        return ""
    return f"the order of inputs counts: {method} gets {', '.join(names)}, in this order"


def arranged_for(
    definition: ModelDefinition, module: torch.nn.Module, parameters: Parameters
) -> tuple[torch.nn.Module, str]:
    """Return `module` as it is called with the inputs of `definition`, in order, and a note.

    In the place of an input that is left out stands None. Raises as `arrange` does; and if the
    module has no default for an input that may be left out. Any thread.
    """
    spec = definition.spec
    names = [tensor.name for tensor in spec.inputs]
    arranged, note = arrange(module, parameters, names, definition.listing)
    lacking = lacking_inputs(spec)
    if lacking and not parameters.is_mapping and not isinstance(arranged, Contained):
        arranged = _leaving_out(module, parameters, names, lacking) or arranged
    # A compiler takes `forward` of the module that it is given, and `__call__` of those within.
    if arranged is module and (lacking or parameters.method == "__call__"):
        arranged = Arranged(module, range(len(spec.inputs)), {})
    return arranged, note


def _leaving_out(
    module: torch.nn.Module, parameters: Parameters, names: Sequence[str], lacking: Sequence[str]
) -> Arranged | None:
    """Return `module` as it is called with inputs of `names`, of which some may be `lacking`.

    Behind an input that may be lacking all go by keyword, so that each lacking one has the default
    of its own parameter. None if not all have such a name. Raises ModelLoadError: a parameter has
    no default. Any thread.
    """
    are_names = bool(parameters.names) and _are_names(parameters, names)
    taking = names if are_names else parameters.positional[: len(names)]
    for name, parameter in zip(names, taking, strict=False):
        if name in lacking:
            check_default(name, parameter, parameters.required, str(parameters))
    places = {parameter: place for place, parameter in enumerate(taking)}
    by_place = []
    for parameter in parameters.positional:
        if parameter not in places or names[places[parameter]] in lacking:
            break
        by_place.append(places.pop(parameter))
    takes_any = are_names and parameters.takes_others
    if len(taking) == len(names) and (takes_any or parameters.by_keyword.issuperset(places)):
        return Arranged(module, by_place, places)
    return None


def parameters_of_python(module: torch.nn.Module) -> Parameters:
    """Return what a call of a module in Python takes; nothing if Python cannot tell.

    That is what `__call__` takes if the class has its own one, and passes more on than it names.
    Any thread.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return parameters_of_script(module)
    if type(module).__call__ is not torch.nn.Module.__call__:
        found = _parameters(module.__call__, "__call__")
        if found.names or found.is_mapping:
            return found
    inner = _wrapped_module(module)
    return parameters_of_python(inner) if inner else _parameters(module.forward, "forward")


def _wrapped_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the module that one of PyTorch's wrappers calls with all arguments. Any thread.

    `torch.compile`, `AveragedModel` and `DataParallel` make such wrappers, and a class of the model
    may build on one.
    """
    if str(getattr(module.forward, "__module__", "")).startswith("torch."):
        for name in ("_orig_mod", "module"):
            if isinstance(inner := getattr(module, name, None), torch.nn.Module):
                return inner
    return None


def _parameters(method: Callable[..., Any], name: str) -> Parameters:
    """Return what `method`, called `name`, takes; nothing if Python cannot tell. Any thread."""
    try:
        listed = list(inspect.signature(method, follow_wrapped=False).parameters.values())
        if all(each.kind in _OPEN for each in listed):
            # A decorator that passes all arguments on shows what it decorates.
            listed = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return Parameters((), frozenset(), (), True)
    named = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    kinds = {each.kind for each in listed}
    return Parameters(
        tuple(each.name for each in listed if each.kind in _POSITIONAL),
        frozenset(each.name for each in listed if each.kind in named[1:]),
        tuple(each.name for each in listed if each.kind in named and each.default is each.empty),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        kinds == {inspect.Parameter.VAR_KEYWORD},
        inspect.Parameter.VAR_KEYWORD in kinds,
        _container_of(method, listed),
        name,
    )


def _container_of(method: Callable[..., Any], listed: Sequence[inspect.Parameter]) -> type | None:
    """Return the class of container that the one required parameter takes, None if none.

    Any thread.
    """
    required = [each for each in listed if each.kind not in _OPEN and each.default is each.empty]
    if len(required) != 1 or required[0] is not listed[0] or required[0].kind not in _POSITIONAL:
        return None
    try:
        hint = get_type_hints(method).get(required[0].name)
    except Exception:  # names that are there for type checkers alone
        return None
    kind: Any = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return dict
    kinds: dict[Any, type] = {list: list, tuple: tuple, Sequence: list}
    return kinds.get(kind)


def parameters_of_script(module: Any) -> Parameters:
    """Return what `forward` of a scripted or traced module takes. Any thread."""
    arguments = module.forward.schema.arguments[1:]  # the first is the module itself
    names = tuple(argument.name for argument in arguments)
    required = [each for each in arguments if not each.has_default_value()]
    container: type | None = None
    if len(required) == 1 and required[0] is arguments[0]:
        kinds: dict[str, type] = {"DictType": dict, "ListType": list}
        container = kinds.get(required[0].type.kind())
    return Parameters(
        names, frozenset(names), tuple(each.name for each in required), container=container
    )


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
    note = f"inputs go by their names to {parameters}; {listing} {', '.join(names)}"
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
