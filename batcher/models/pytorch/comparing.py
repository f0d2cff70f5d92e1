"""Whether another form of a module, such as a compiled one, gives the answers of the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from batcher.core.spec import ModelSpec
from batcher.models.pytorch.precision import Tolerance
from batcher.models.pytorch.tensors import to_tensor, torch_dtype
from batcher.models.result_names import named_outputs


def comparison_inputs(spec: ModelSpec, rows: int, device: torch.device) -> list[torch.Tensor]:
    """Return `rows` rows of numbers, the same each time, in order.

    Inputs of whole numbers are zeros: an index must not point outside of a table.

    Inference thread.
    """
    generator = torch.Generator().manual_seed(rows)
    host = torch.device("cpu")  # a model may have set another one for what names none
    inputs = []
    for tensor in spec.inputs:
        dtype, shape = torch_dtype(tensor), (rows, *tensor.shape)
        is_float = dtype.is_floating_point
        values = torch.zeros(shape, device=host)
        if is_float:
            values = torch.randn(shape, generator=generator, device=host)
        typed = values.to(dtype)
        array = (typed.view(torch.uint16) if dtype is torch.bfloat16 else typed).numpy()
        # As a batch of clients comes: what is compiled for one kind of tensor is not for another.
        inputs.append(to_tensor(array, tensor, device))
    return inputs


def outputs_of(module: Callable[..., Any], inputs: list[Any], spec: ModelSpec) -> dict[str, Any]:
    """Return by their names what `module` makes of `inputs`. Inference thread."""
    outputs, _ = named_outputs(module(*inputs), spec)
    return outputs


def other_output(
    got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], tolerance: Tolerance
) -> str:
    """Return the name of an output that rounding does not explain; empty if there is none.

    Inference thread.
    """
    for name, value in expected.items():
        if not is_close(got[name], value, tolerance):
            return name
    return ""


def is_close(new: torch.Tensor, old: torch.Tensor, tolerance: Tolerance) -> bool:
    """Return whether rounding explains how two outputs differ. Inference thread."""
    rtol, atol = tolerance
    return torch.allclose(new.double(), old.double(), rtol=rtol, atol=atol, equal_nan=True)
