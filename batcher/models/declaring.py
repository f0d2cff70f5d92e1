"""`@batcher.model(…)`: a class, a module or a function says what it takes and gives.

    @batcher.model(inputs={"text": "BYTES[1]"}, outputs={"score": "FP32[2]"})
    class Sentiment:
        def predict(self, inputs):
            ...

The decorator changes nothing and loads nothing: it leaves a note at the class, which `batcher
serve FILE` and `batcher.serve` read. Without outputs, the model runs once and shows them. Texts are
those of `config/tensor_text.py`.

Annotations say the same: `def forward(self, x: Annotated[torch.Tensor, "FP32[784]"])`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from batcher.config.tensor_text import tensor_values
from batcher.errors import ConfigError

Declared = TypeVar("Declared", bound=Callable[..., Any])
_MARK = "__batcher_model__"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a model says of itself.

    Attributes:
        inputs: inputs by name; None if it does not say.
        outputs: outputs by name; None if it does not say.
        sample: a first example: a file, an array, or arrays by name; None without one.
        more: other keys of `model.yaml`, such as `weights` and `gradients`.
    """

    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    sample: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)


def model(
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    *,
    sample: Any = None,
    weights: str | Path | None = None,
    gradients: bool = False,
    prepared: Mapping[str, Any] | None = None,
) -> Callable[[Declared], Declared]:
    """Return a decorator that declares what a class, module or function takes and gives.

    Tensors are texts such as `FP32[3,224,224]` by name, or mappings of what `model.yaml` may say of
    one. `sample` is a file (`.npy`, `.npz`, `.json`), an array, or arrays by name: a first example
    in the place of `inputs`, and rows for warm-up and deep checks. `weights` is a file for a
    `torch.nn.Module`, beside the Python file. `prepared` are tensors that `preprocess` makes in
    rows of unequal lengths, each with a `pad`: `{"dtype": "INT64", "shape": [-1], "pad": 0}`.
    Raises ConfigError: a text is not one of a tensor.
    """
    for tensors in (inputs, outputs, prepared):
        _check(tensors)
    uneven = [tensor_values(*declared) for declared in (prepared or {}).items()]
    said = {"weights": weights and str(weights), "gradients": gradients, "prepared": uneven}
    return partial(
        _mark, Declaration(inputs, outputs, sample, {k: v for k, v in said.items() if v})
    )


def _mark(declaration: Declaration, target: Declared) -> Declared:
    """Leave `declaration` at `target`, and return `target`."""
    setattr(target, _MARK, declaration)
    return target


def _check(tensors: Mapping[str, Any] | None) -> None:
    """Raise ConfigError if one of `tensors` cannot be read."""
    if callable(tensors):
        raise ConfigError(
            "batcher.model: expected arguments: write "
            '@batcher.model(inputs={"x": "FP32[784]"}); got none'
        )
    for name, declared in (tensors or {}).items():
        try:
            tensor_values(name, declared)
        except ValueError as err:
            raise ConfigError(f"batcher.model: {err}") from err


def sample_attribute(model: Any) -> Any:
    """Return the attribute `sample` of a class, or of an object of a class, if it holds rows.

    A mapping does, and what the class itself has: an array, or the path of a file. Anything else of
    that name is something of the model's own, as `sample` of generative models is a method.
    """
    own = getattr(model, "sample", None)
    if isinstance(own, Mapping):
        return own
    of_class = getattr(model if isinstance(model, type) else type(model), "sample", None)
    return of_class if isinstance(of_class, np.ndarray | Path) else None


def declaration_of(target: Any) -> Declaration | None:
    """Return what `target` declares by itself, not by a class above it; None if nothing."""
    found = vars(target).get(_MARK) if hasattr(target, "__dict__") else None
    return found if isinstance(found, Declaration) else None
