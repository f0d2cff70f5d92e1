"""Arrays to PyTorch's tensors, and tensors back to arrays.

On the CPU an array and its tensor share their memory. To and from CUDA the copies are asynchronous,
through pinned memory. NumPy has no BF16, so a BF16 array holds 16-bit integers, which are viewed as
BF16 on the way to a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError, ModelLoadError


def torch_dtype(tensor: TensorSpec) -> torch.dtype:
    """Return PyTorch's dtype for a tensor of a specification.

    Raises:
        ModelLoadError: PyTorch has no such dtype (BYTES).

    Any thread.
    """
    dtype = getattr(torch, tensor.datatype.alias, None)
    if not isinstance(dtype, torch.dtype):
        raise ModelLoadError(
            f"{tensor.name!r}: expected a dtype that PyTorch has; got {tensor.datatype.name}"
        )
    return dtype


def to_tensor(array: Array, spec: TensorSpec | None, device: torch.device) -> torch.Tensor:
    """Return `array`, a writable buffer, as a tensor on `device`.

    `spec` is that of the input of this name, None for another name that `preprocess` has given; the
    hook may also have changed the dtype. The copy to CUDA may still be running when this function
    returns.

    Raises:
        ModelContractError: `preprocess` has left text in the array.

    Inference thread.
    """
    if array.dtype.hasobject:
        raise ModelContractError("preprocess: expected numbers for a module; got an array of text")
    tensor = torch.from_numpy(array)
    if spec is not None and spec.datatype.name == "BF16" and array.dtype == spec.datatype.numpy:
        tensor = tensor.view(torch.bfloat16)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


def to_host(value: Any) -> Any:
    """Return `value`, if it is a tensor, in host memory; other values as they are.

    The copy from CUDA may still be running: synchronise before the tensor is read.

    Inference thread.
    """
    if not isinstance(value, torch.Tensor):
        return value
    if value.device.type == "cpu":
        return value.detach()
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return host.copy_(value.detach(), non_blocking=True)


def to_array(value: Any) -> Array:
    """Return a tensor in host memory, or an array, as a contiguous array.

    BF16 becomes 16-bit integers.

    Inference thread.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach()
        value = (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
    if type(value) is np.ndarray and value.flags.c_contiguous:
        return value
    # `ascontiguousarray` gives a scalar an axis, and the check of rows would take it for a row.
    return np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)


def by_name(result: Any, spec: ModelSpec) -> dict[str, Any]:
    """Return the outputs in a module's `result` by their names.

    A mapping has the names already. A sequence of outputs, or a single output, gets the names of
    the specification in its order.

    Raises:
        ModelContractError: the result has another number of outputs than the specification.

    Any thread.
    """
    if isinstance(result, Mapping):
        return dict(result)
    values = list(result) if isinstance(result, Sequence) else [result]
    if len(values) != len(spec.outputs):
        raise ModelContractError(
            f"model {spec.name!r}: expected {len(spec.outputs)} outputs; got {len(values)}"
        )
    return {tensor.name: value for tensor, value in zip(spec.outputs, values, strict=True)}
