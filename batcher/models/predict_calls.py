"""How `predict` of a class is called: with all inputs as one mapping, or with each by its name.

    def predict(self, inputs)              one mapping of name to array
    def predict(self, text, lengths)       each input by its name, if all names are inputs
    def predict(self, text, lengths=None)  likewise
    def predict(self, **inputs)            each input by its name
    def predict(self, text)                by its name, if `@batcher.model` or an annotation says
                                           what the inputs are; else one mapping, as ever
    predict(X) of an estimator             the array of the one input, as scikit-learn has it
    any other names of several arguments   refused at load, with both lists of names

One argument alone may have the name of an input and mean the mapping. So its name decides only in a
class that says itself what its inputs are. Of several arguments at least two must have names of
inputs: `predict(self, inputs, k=7)` takes the mapping. An estimator is an object with `fit`, too.

A decorator's own arguments count, and with `*args` or `**kwargs` those of what it has wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any

from batcher.errors import ModelLoadError
from batcher.models.declaring import declaration_of
from batcher.models.describing.annotated import inputs_of, parameters_of
from batcher.models.lacking import check_default
from batcher.models.protocol import Arrays

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_POSITIONAL = (
    Parameter.POSITIONAL_ONLY,
    Parameter.POSITIONAL_OR_KEYWORD,
    Parameter.VAR_POSITIONAL,
)


def predict_of(
    model: Any, names: Sequence[str], lacking: Sequence[str] = ()
) -> Callable[[Arrays], Any]:
    """Return `predict` of `model` as a function of the mapping of the inputs called `names`.

    Raises:
        ModelLoadError: there is none, or it takes several arguments that are not the inputs, or
            needs one that is among the `lacking`, which the mapping may not have.

    Inference thread.
    """
    predict = _predict_of_object(model)
    taken = _taken_by(predict)
    needed = _needed(taken)
    if needed == ["X"] and hasattr(model, "fit"):
        return _of_estimator(model, names)
    # What `preprocess` makes has names of its own, known when a batch comes.
    is_prepared = hasattr(model, "preprocess")
    are_inputs = is_prepared or _are_inputs(taken, needed, names)
    if _is_for_mapping(model, predict, names, are_inputs):
        return predict
    if not is_prepared:
        _check_names(model, taken, names, lacking)
    return lambda inputs: predict(**inputs)


def _check_names(
    model: Any, taken: Sequence[Parameter], names: Sequence[str], lacking: Sequence[str]
) -> None:
    """Check that the parameters `taken` can take all inputs by name; raises as `predict_of`.

    Any thread.
    """
    needed, method = _needed(taken), f"{type(model).__name__}.predict"
    if not _are_inputs(taken, needed, names):
        got = ", ".join(each.name for each in taken if each.kind in _NAMED)
        raise ModelLoadError(
            f"{method}: expected one argument, the mapping of all inputs, or the inputs by their "
            f"names, {', '.join(names)}; got {got}"
        )
    for name in lacking:
        check_default(name, name, needed, method)


def _taken_by(predict: Callable[..., Any]) -> list[Parameter]:
    """Return what `predict` takes, or what its decorators hand on. Any thread."""
    own = parameters_of(predict, follow_wrapped=False)
    if any(each.kind in _VARIABLE for each in own):
        return parameters_of(predict)
    return own


def _needed(taken: Sequence[Parameter]) -> list[str]:
    """Return the names of those parameters among `taken` that have no default. Any thread."""
    return [each.name for each in taken if each.kind in _NAMED and each.default is each.empty]


def _is_for_mapping(
    model: Any, predict: Callable[..., Any], names: Sequence[str], are_inputs: bool
) -> bool:
    """Return whether `predict` gets the mapping of the inputs called `names`. Any thread.

    `are_inputs` tells whether its parameters can take all inputs.
    """
    taken = _taken_by(predict)
    needed = _needed(taken)
    if any(each.kind is Parameter.POSITIONAL_ONLY for each in taken):
        return True
    takes_mapping = not taken or any(each.kind in _POSITIONAL for each in taken)
    of_inputs = [each for each in taken if each.kind in _NAMED and each.name in names]
    are_several = len(of_inputs) > 1 and set(needed) <= set(names)
    if not takes_mapping or are_several or len(needed) > 1:
        return False
    says = declaration_of(type(model)) is not None or inputs_of(predict) is not None
    return not (needed and says and needed[0] in names and are_inputs)


def _predict_of_object(model: Any) -> Callable[..., Any]:
    """Return `predict` of `model`; raises what a property raises, and ModelLoadError without one.

    Any thread.
    """
    has_predict = hasattr(type(model), "predict") or hasattr(model, "predict")
    predict: Callable[..., Any] | None = model.predict if has_predict else None
    if not callable(predict):
        got = "none" if predict is None else f"an object of class {type(predict).__name__}"
        raise ModelLoadError(
            f"{type(model).__name__}: expected a method `predict` once the model is loaded, which "
            f"is called with each batch; got {got}"
        )
    return predict


def _of_estimator(model: Any, names: Sequence[str]) -> Callable[[Arrays], Any]:
    """Return what calls `predict` of an estimator with the array of its one input.

    Raises:
        ModelLoadError: there are several inputs.

    Inference thread.
    """
    if len(names) > 1:
        raise ModelLoadError(
            f"{type(model).__name__}.predict: expected one input, the array X; got "
            f"{', '.join(names)}. Write a class whose `predict(self, inputs)` makes the table of "
            "all inputs, and calls the estimator"
        )
    (name,) = names
    return lambda inputs: model.predict(inputs[name])


def _are_inputs(taken: Sequence[Parameter], needed: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether the parameters `taken`, of which some are `needed`, can take all inputs."""
    if any(each.kind is Parameter.VAR_KEYWORD for each in taken):
        return set(needed) <= set(names)
    known = {each.name for each in taken if each.kind in _NAMED}
    return set(needed) <= set(names) <= known
