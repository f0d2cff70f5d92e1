"""A load that waits for another process lets other models load meanwhile.

Whoever runs loads says for the current thread how a pause is made (`pause_with`), for example by
letting go of a lock. Code that waits for minutes in the middle of a load, such as for a compiler,
waits in `others_may_load`. A thread for which nobody has said anything makes no pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Pause = Callable[[], AbstractContextManager[object]]
"""Makes the context in which others may load."""

_pause: ContextVar[Pause] = ContextVar("pause", default=nullcontext)


@contextmanager
def pause_with(pause: Pause) -> Iterator[None]:
    """Have `pause` make the pauses of loads on this thread meanwhile. The thread that loads."""
    token = _pause.set(pause)
    try:
        yield
    finally:
        _pause.reset(token)


def others_may_load() -> AbstractContextManager[object]:
    """Return a context in which other models may load. The thread that loads."""
    return _pause.get()()
