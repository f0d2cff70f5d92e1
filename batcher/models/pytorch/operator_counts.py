"""How many operators a batch of a module takes: each takes the interpreter lock once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def is_compiled(module: Callable[..., Any]) -> bool:
    """Return whether `torch.compile` has made a part of `module`. Inference thread.

    Such a part is not compiled while operators are counted, and may refuse to run as it is.
    """
    parts = module.modules() if isinstance(module, torch.nn.Module) else ()
    return any(hasattr(part, "_orig_mod") for part in parts)


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that are called in its context.

    Attributes:
        count: operators so far.
    """

    count = 0
    supports_higher_order_operators = True  # control flow, such as `torch.cond`

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: to hide from TorchDynamo would import it, which takes seconds. Any thread.

        Nothing is compiled under this mode: the operators of compiled modules are not counted.
        """
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count `func` and call it. Inference thread."""
        self.count += 1
        return func(*args, **(kwargs or {}))
