"""Lets go of what the frames of an exception hold.

An exception holds its traceback, the traceback holds frames, and frames hold their variables: a
body of 64 MiB, and what was made of it so far. If a variable holds the exception in turn, as the
parser of a library does, all of it stays until Python's collector comes by. The collector comes
after so many objects, whatever their size.
"""

from __future__ import annotations

from traceback import clear_frames


def clear_all_frames(error: BaseException) -> None:
    """Have the frames of `error` and of all that led to it forget their variables.

    A traceback that is written later shows the same lines. Frames that still run are left alone.
    Any thread.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            clear_frames(one.__traceback__)
            waiting += (one.__cause__, one.__context__)
