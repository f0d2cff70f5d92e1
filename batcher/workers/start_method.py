"""How `multiprocessing` starts processes: each model may say so once, and the first one counts.

    multiprocessing.set_start_method("spawn")     # in m/1/code.py

Python allows this once in a process, and no more once a lock or a queue was made. So the second
model that says so, or the same one after a reload, would not load. Models start their processes
while they serve too, so what the first one has said stays.
"""

from __future__ import annotations

from multiprocessing import get_all_start_methods, get_start_method, set_start_method

CHANGED = "the start method of multiprocessing"
"""What the log calls this setting."""


class StartMethod:
    """The method before a load, which may set one of its own."""

    def __init__(self) -> None:
        """Let the load set a method. The thread that loads."""
        self._before = get_start_method(allow_none=True)
        set_start_method(None, force=True)

    def put_back(self) -> list[str]:
        """Have the first method count again; return the setting's name if another one was set.

        Once. The thread that loads.
        """
        now = get_start_method(allow_none=True)
        # Whatever makes a lock or a queue sets the default method.
        own = None if now == get_all_start_methods()[0] else now
        set_start_method(self._before or own, force=True)
        return [CHANGED] if self._before and own and own != self._before else []
