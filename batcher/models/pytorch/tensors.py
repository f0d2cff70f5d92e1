"""Between arrays and tensors.

No copy on the CPU, pinned and asynchronous copies on CUDA, BF16 re-viewed on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError, ModelLoadError


def torch_dtype(tensor: TensorSpec) -> torch.dtype:
    """Return the dtype of a tensor. Any thread.

    Raises:
        ModelLoadError: PyTorch has none (BYTES).
    """
    found = getattr(torch, tensor.datatype.alias, None)
    if not isinstance(found, torch.dtype):
        raise ModelLoadError(
            f"{tensor.name!r}: expected a dtype that PyTorch has; got {tensor.datatype.name}"
        )
    return found


def to_tensor(array: Array, tensor: TensorSpec | None, device: torch.device) -> torch.Tensor:
    """Return `array`, a writable buffer, as a tensor on `device`.

    The copy to CUDA does not wait. Inference thread.
    """
    found = torch.from_numpy(array)
    if tensor is not None and tensor.datatype.name == "BF16":
        found = found.view(torch.bfloat16)
    return found if device.type == "cpu" else found.to(device, non_blocking=True)


def to_host(value: Any) -> Any:
    """Start bringing `value` to host memory if it is a tensor; synchronise before reading it.

    Inference thread.
    """
    if not isinstance(value, torch.Tensor):
        return value
    if value.device.type == "cpu":
        return value.detach()
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return host.copy_(value.detach(), non_blocking=True)


def to_array(value: Any) -> Array:
    """Return a host tensor or array as a contiguous array; BF16 as 16-bit integers.

    Inference thread.
    """
    if isinstance(value, torch.Tensor):
        value = (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
    if type(value) is np.ndarray and value.flags.c_contiguous:
        return value
    return np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)


def by_name(result: Any, spec: ModelSpec) -> dict[str, Any]:
    """Return a module's result, a tensor, a sequence or a mapping of tensors, by the names of the specification.

    Raises:
        ModelContractError: another number of outputs than the specification has.
    """
    if isinstance(result, Mapping):
        return dict(result)
    values = list(result) if isinstance(result, Sequence) else [result]
    if len(values) != len(spec.outputs):
        raise ModelContractError(
            f"model {spec.name!r}: expected {len(spec.outputs)} outputs; got {len(values)}"
        )
    return {tensor.name: value for tensor, value in zip(spec.outputs, values, strict=True)}
