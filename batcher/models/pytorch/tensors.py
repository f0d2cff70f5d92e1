"""Arrays to PyTorch's tensors, and tensors back to arrays.

On the CPU an array and its tensor share their memory. To and from CUDA the copies are asynchronous,
through pinned memory. NumPy has no BF16, so a BF16 array holds 16-bit integers, which are viewed as
BF16 on the way to a tensor.

A model may return tensors that NumPy cannot read:

    the tensor                                      becomes
    needs gradients, has a conjugate or negative    an array of its values
        bit, is of a subclass
    BF16, for an output of another dtype            FP32
    nested                                          a list of rows of unequal shapes
    sparse, quantised                               an error that says what to write
    on the device `meta`, a FakeTensor              an error: it has a shape, and no values
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from batcher.core.spec import Array, TensorSpec
from batcher.errors import ModelContractError, ModelLoadError

_APART_BYTES: Final = 64
"""Bytes between the beginning of pinned memory and what comes home into it; keeps arrays aligned.
"""

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


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
    """Return a tensor in memory of the host, as an array if it lies there already.

    A copy from CUDA stays a tensor, and may still be running: synchronise before it is read, and
    also where an error comes in between, before the tensor is freed. Values of other kinds, and
    tensors that NumPy cannot read, stay as they are.

    Inference thread.
    """
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_cpu:
        try:
            return value.numpy()
        # Not the usual case: to ask first would cost every batch.
        except (TypeError, RuntimeError):
            return value
    if not value.is_cuda or not is_dense(value):
        return value
    value = value.detach().resolve_conj().resolve_neg()
    return _home_of(value).copy_(value, non_blocking=True)


def copy_each(
    values: Mapping[str, Any], copy: Callable[[Any], Any], copies: dict[str, Any]
) -> None:
    """Put what `copy` makes of each of `values` into `copies`, under the same name.

    After an error `copies` holds the copies that were begun; whoever holds `copies` can wait for
    them. A comprehension would free them at once: a copy that still runs would write into memory
    that belongs to something else by then.

    Inference thread.
    """
    for name, value in values.items():
        copies[name] = copy(value)


def pinned(nbytes: int) -> torch.Tensor:
    """Return pinned memory of the host, from and to which CUDA copies while the host goes on.

    Its device is named: a model may have set another one for tensors that name none.

    Inference thread.
    """
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)


def _home_of(value: torch.Tensor) -> torch.Tensor:
    """Return pinned memory for `value`, which PyTorch frees without a question to the device.

    PyTorch notes which streams copy into pinned memory that it finds by its first address, and
    marks a point in each of them when the memory is freed. On a lost device that aborts the whole
    process, and answers are freed long after their batch, when a client has read them. Memory in
    between is not found. Nothing is lost by that: copies are waited for anyway. But PyTorch rounds
    up to a power of two, so a value of exactly such a number of bytes takes twice as many.

    Inference thread.
    """
    memory = pinned(_APART_BYTES + value.nbytes)
    apart = torch.from_numpy(memory.numpy()[_APART_BYTES:])
    return apart.view(value.dtype).view(value.shape)


def on_host(value: Any, tensor: TensorSpec | None, place: str) -> Any:
    """Return a tensor as an array, also where a list of rows holds it; other values as they are.

    A nested tensor becomes a list of rows. The arguments and errors are those of `to_array`.

    Any thread.
    """
    if isinstance(value, torch.Tensor):
        if value.is_nested:
            return [to_array(row, tensor, place) for row in value.unbind()]
        return to_array(value, tensor, place)
    if isinstance(value, list | tuple) and any(isinstance(row, torch.Tensor) for row in value):
        return [on_host(row, tensor, place) for row in value]
    return value


def to_array(value: torch.Tensor, tensor: TensorSpec | None, place: str) -> Array:
    """Return a tensor as an array in host memory, which may be memory of the tensor.

    For an output of BF16 a BF16 tensor becomes 16-bit integers, for every other output FP32.

    Args:
        value: the tensor.
        tensor: the output that the tensor is of; None if that is unknown.
        place: names the model and the output, for error texts.

    Raises:
        ModelContractError: the tensor holds no plain numbers; the message says what to write.

    Any thread.
    """
    try:
        array: Array = value.numpy()
    except (TypeError, RuntimeError):
        array = _readable(value, tensor, place).numpy()
    return array


def is_dense(value: Any) -> bool:
    """Return whether `value` is a tensor whose numbers lie in memory one by one. Any thread."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    return not (value.is_quantized or value.is_nested)


def _readable(value: torch.Tensor, tensor: TensorSpec | None, place: str) -> torch.Tensor:
    """Return a tensor that NumPy cannot read as one that NumPy can; raises as `to_array`."""
    if kind := without_values(value):
        raise ModelContractError(f"{place}: expected a tensor with values; got {kind}")
    got = _kind_without_numbers(value)
    if got is not None:
        kind, mend = got
        raise ModelContractError(
            f"{place}: expected a dense tensor; got a {kind} one: return `.{mend}()` of it"
        )
    plain = value.detach().cpu().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    if plain.dtype is torch.bfloat16 and tensor is not None and tensor.datatype.name == "BF16":
        return plain.view(torch.uint16)
    # NumPy has neither BF16 nor the floats of 8 bits.
    if plain.dtype.is_floating_point and plain.dtype not in _NUMPY_FLOATS:
        return plain.float()
    # A tensor that is known to hold zeros has no memory; its clone has.
    return plain.clone() if plain._is_zerotensor() else plain


def _kind_without_numbers(value: torch.Tensor) -> tuple[str, str] | None:
    """Return the kind of a tensor that holds no plain numbers, and the method that makes it dense.

    None for every other tensor.
    """
    if value.is_quantized:
        return "quantised", "dequantize"
    if value.layout is not torch.strided:
        return str(value.layout).removeprefix("torch."), "to_dense"
    return None


def without_values(value: torch.Tensor) -> str:
    """Return what kind of tensor `value` is if it has a shape alone, and why; else nothing.

    Any thread.
    """
    if type(value).__name__ == "FakeTensor":  # of a module that is not imported for that
        return "a FakeTensor, which has none: run the model outside of FakeTensorMode"
    if value.device.type == "meta":
        return "a meta one, which has none: the weights that it was made with were never loaded"
    return ""
