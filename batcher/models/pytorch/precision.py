"""In which numbers a module computes: the settings `dtype`, `autocast` and `channels_last`.

Clients and hooks see none of this: inputs and outputs keep the types that `model.yaml` declares.

    setting                       weights      inputs       outputs
    dtype: bf16                   cast once    cast         FP32 again
    dtype: bf16, autocast: true   as they are  as they are  FP32 again; operators that gain by BF16
                                                            cast what they take, others do not
    channels_last: true           4 axes: the  4 axes: the  as the module makes them
                                  same order   same order

With `dtype` alone every number of the module is cast, those of its buffers too. A model that needs
more bits at one place, such as a table of angles, wants `autocast`.

A module without these settings is called as it is: nothing stands in front of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils import _pytree as pytree

from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_PICTURE_AXES = 4
"""Axes of a tensor that `channels_last` puts in another order: rows, channels, height, width."""


class Tolerance(NamedTuple):
    """How far two runs of one module may differ: atol + rtol * |value|."""

    rtol: float
    atol: float


_ROUNDING = Tolerance(1e-2, 1e-3)
_ROUNDING_OF_HALVES = Tolerance(5e-2, 5e-2)
"""Of numbers with 8 bits (BF16) or 11 bits (FP16), through many layers."""

Weighted = TypeVar("Weighted", bound=torch.nn.Module)
Called = TypeVar("Called", bound=Callable[..., Any])


class Precision(NamedTuple):
    """In which numbers a module computes.

    Attributes:
        dtype: type of the weights, or of operators under `autocast`; None as the module has them.
        autocast: whether weights stay as they are, and operators choose.
        channels_last: whether pictures and the weights of convolutions have channels as last axis.
    """

    dtype: torch.dtype | None
    autocast: bool
    channels_last: bool

    @property
    def casts(self) -> torch.dtype | None:
        """The type that weights and inputs are cast to; None if they are not."""
        return None if self.autocast else self.dtype

    @property
    def tolerance(self) -> Tolerance:
        """How far two runs may differ."""
        return _ROUNDING if self.dtype in (None, torch.float32) else _ROUNDING_OF_HALVES

    def with_weights(self, module: Weighted) -> Weighted:
        """Return `module` with its weights in these numbers. Any thread."""
        if self.casts is not None:
            module.to(self.casts)
        if self.channels_last:
            # PyTorch's annotations lack this form of the call.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def around(self, module: Called, spec: ModelSpec) -> Called | InPrecision:
        """Return `module`, whose weights are in these numbers, as clients call it. Any thread."""
        if self.dtype is None and not self.channels_last:
            return module
        aliases = {tensor.datatype.alias for tensor in spec.outputs}
        floats = {alias for alias in aliases if "float" in alias}
        return InPrecision(module, self, keeps=floats == {str(self.dtype).removeprefix("torch.")})


class InPrecision(torch.nn.Module):
    """A module that computes in other numbers than those it is called with."""

    def __init__(self, module: Callable[..., Any], precision: Precision, keeps: bool) -> None:
        """Wrap `module`. With `keeps`, outputs stay in the type of `precision`. Any thread."""
        super().__init__()
        self._module = module
        self._precision = precision
        self._becomes = None if keeps else precision.dtype
        self.training = False  # `module` has its mode, which one from an export cannot change

    def forward(self, *inputs: torch.Tensor | None) -> Any:
        """Return what the module makes of `inputs`. Inference thread."""
        with self._context(inputs):
            outputs = self._module(*[self._taken(tensor) for tensor in inputs])
        return pytree.tree_map_only(torch.Tensor, self._returned, outputs)

    def _context(self, inputs: tuple[torch.Tensor | None, ...]) -> AbstractContextManager[Any]:
        if not self._precision.autocast:
            return nullcontext()
        device = next((each.device.type for each in inputs if each is not None), "cpu")
        return torch.autocast(device, self._precision.dtype)

    def _taken(self, tensor: torch.Tensor | None) -> torch.Tensor | None:
        """Return an input as the module takes it. Inference thread."""
        if tensor is None:
            return None
        if self._precision.casts is not None and tensor.is_floating_point():
            tensor = tensor.to(self._precision.casts)
        if self._precision.channels_last and tensor.ndim == _PICTURE_AXES:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _returned(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return an output as hooks and clients know it. Inference thread."""
        return tensor.float() if tensor.dtype is self._becomes else tensor


def precision_of(settings: ModelSettings) -> Precision:
    """Return the numbers that `settings` ask for. Any thread."""
    dtype = _DTYPES[settings.dtype] if settings.dtype is not None else None
    return Precision(dtype, settings.autocast, settings.channels_last)
