"""What an error of a device means: whether a smaller batch may run, or nothing will run any more.

Frameworks tell the two apart by words alone: CUDA reports both as a `RuntimeError` that names CUDA.
Whether the device is lost is found out by asking it again: after an illegal access or a failed
assertion every later call of the process fails as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from batcher.core.error_text import summary
from batcher.errors import DeviceLost, OutOfMemory

_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "failed to allocate memory",
    "alloc_failed",
)
_OF_A_DEVICE = ("CUDA", "CUBLAS", "CUDNN", "HIP error")


def device_error(error: BaseException, answers: Callable[[], bool] | None = None) -> BaseException:
    """Return OutOfMemory or DeviceLost if `error`, which a model raised, means that, else `error`. Inference thread.

    Args:
        error: what was raised; of one that means OutOfMemory the stack is let go of, with what its
            frames hold.
        answers: whether the device still works; without, PyTorch is asked.
    """
    text = summary(error)
    if _is_out_of_memory(error, text):
        error.__traceback__ = error.__cause__ = error.__context__ = None
        _give_back()
        return OutOfMemory(text)
    of_a_device = isinstance(error, RuntimeError) and any(word in text for word in _OF_A_DEVICE)
    if of_a_device and not (answers or _answers)():
        lost = DeviceLost(text)
        lost.__cause__ = error
        return lost
    return error


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    speaks = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return isinstance(error, MemoryError) or (
        speaks and any(words in text.lower() for words in _OUT_OF_MEMORY)
    )


def _give_back() -> None:
    """Give what PyTorch keeps of the device's memory back, so that the next, smaller batch finds one piece."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with suppress(
            RuntimeError
        ):  # it raises where the device is lost, and the next batch will tell
            torch.cuda.empty_cache()


def _answers() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda").item()
    except RuntimeError:
        return False
    return True
