"""What an error of a device means: a smaller batch may still run, or nothing will run any more.

    the error means        becomes         what the server does
    the memory is full     OutOfMemory     runs the batch again in halves
    the device is lost     DeviceLost      runs nothing again; the worker has to be started anew
    something else         (as it is)      treats it as an error of the model

Frameworks tell the first two apart by words alone: CUDA reports both as a `RuntimeError` that names
CUDA. Words do not say whether the device is lost, so the device itself is asked: after an illegal
access or a failed assertion every later call of the process fails as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from batcher.core.error_text import summary
from batcher.errors import DeviceLost, OutOfMemory
from batcher.models.own_code import causes_of, own_place

_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "failed to allocate memory",
    "alloc_failed",
)
_DEVICE_NAMES = ("CUDA", "CUBLAS", "CUDNN", "HIP error")


def device_error(error: BaseException, answers: Callable[[], bool] | None = None) -> BaseException:
    """Return OutOfMemory or DeviceLost if `error` means one of them, else `error` itself.

    Args:
        error: what a model raised. If the error means OutOfMemory, its stack is let go of, and with
            the stack the tensors that its frames hold.
        answers: returns whether the device still works; without this argument PyTorch is asked.

    Inference thread.
    """
    text = summary(error)
    if _is_out_of_memory(error, text):
        full = OutOfMemory(text)
        if (place := own_place(error)) is not None:
            full.place = str(place)
        error.__traceback__ = error.__cause__ = error.__context__ = None
        empty_cache()
        return full
    names_device = isinstance(error, RuntimeError) and any(name in text for name in _DEVICE_NAMES)
    if names_device and not (answers or _answers)():
        lost = DeviceLost(text)
        lost.__cause__ = error
        return lost
    return error


def memory_text(error: BaseException) -> str:
    """Return how `error`, or what led to it, says that memory is full; empty if nothing does.

    Any thread.
    """
    texts = ((each, summary(each)) for each in causes_of(error))
    return next((text for each, text in texts if _is_out_of_memory(each, text)), "")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` came of a memory that is full. Any thread."""
    return bool(memory_text(error)) or any(isinstance(e, OutOfMemory) for e in causes_of(error))


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    """Return whether `error`, with the summary `text`, means that memory is full.

    Inference thread.
    """
    # The words count only in an error of a framework: a model may say them of something else.
    is_framework = isinstance(error, RuntimeError) or type(error).__module__.startswith(
        "onnxruntime"
    )
    return isinstance(error, MemoryError) or (
        is_framework and any(words in text.lower() for words in _OUT_OF_MEMORY_TEXTS)
    )


def empty_cache() -> None:
    """Free the device memory that PyTorch caches, so that the next, smaller batch fits.

    Inference thread.
    """
    # Not imported here: where PyTorch is not loaded, it holds no memory.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        # On a lost device this raises; the next batch will show the loss.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _answers() -> bool:
    """Return whether a small piece of work on the device succeeds. Inference thread."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        # Not `synchronize`: it fails while another thread captures a graph, on a sound device.
        torch.zeros(1, device="cuda").item()
    except RuntimeError:
        return False
    return True
