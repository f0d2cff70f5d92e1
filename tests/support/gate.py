"""A gate that a model on disk stops at while it loads.

The model's code says `from tests.support.gate import GATE; GATE.stop()`.
"""

from __future__ import annotations

from threading import Event

from tests.support.crossing import PATIENCE, Loop


class Gate:
    """Closed or open."""

    def __init__(self) -> None:
        """Begin open."""
        self.close()
        self.open()

    def close(self) -> None:
        """Have the next one stop."""
        self._reached, self._opened = Event(), Event()

    def open(self) -> None:
        """Let go whoever stands here."""
        self._opened.set()

    def stop(self) -> None:
        """Wait until it is open. Any thread."""
        self._reached.set()
        assert self._opened.wait(PATIENCE)

    def wait_reached(self, loop: Loop) -> None:
        """Turn `loop` until somebody has come."""
        loop.run_until(self._reached.is_set)


GATE = Gate()
