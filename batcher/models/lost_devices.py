"""What lay on a device that was lost is kept for good: to free it could end the whole process.

When pinned memory is freed, PyTorch marks a point in each stream that used the memory. On a device
that is lost this raises where C++ allows no exception (`~StorageImpl`), and the process is aborted.
So whoever hears of the loss keeps the model, its error and the batches under way. Answers that are
still being written lie in memory which PyTorch frees without such a mark (`pytorch/tensors.py`).
The process has to be started anew anyway, and all programs of this server end by `os._exit`, which
frees nothing.
"""

from __future__ import annotations

from traceback import walk_tb
from typing import Final

from batcher.core.frames import clear_all_frames
from batcher.errors import DeviceLost
from batcher.models.own_code import causes_of

_KEPT: Final[list[object]] = []


def keep(error: BaseException | None, *held: object) -> None:
    """Never free `held`, nor what the frames of `error` and of what led to it hold.

    Whoever gets the error may clear its frames, so their variables are kept one by one. Any thread.
    """
    _KEPT.extend(held)
    for each in causes_of(error) if error is not None else ():
        _KEPT.append(each)
        _KEPT.extend(dict(frame.f_locals) for frame, _ in walk_tb(each.__traceback__))


def keep_if_lost(error: BaseException | None, *held: object) -> bool:
    """Return whether `error` is the loss of a device; if so, keep all, as `keep`. Any thread."""
    if not isinstance(error, DeviceLost):
        return False
    keep(error, *held)
    return True


def keep_where_lost(model: object) -> None:
    """Never free `model` if a device of this process is lost. Any thread."""
    if _KEPT:
        keep(None, model)


def forget_frames(error: BaseException) -> None:
    """Have the frames of `error` let go of their variables, unless a device is lost. Any thread."""
    if any(isinstance(each, DeviceLost) for each in causes_of(error)):
        keep(error)
    elif not _KEPT:
        clear_all_frames(error)
