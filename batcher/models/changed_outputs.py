"""A batch under way whose outputs are changed once they are there."""

from __future__ import annotations

from collections.abc import Callable

from batcher.core.spec import Array
from batcher.models.protocol import Running


class ChangedOutputs:
    """A batch that a device runs; wrappers of models change its outputs."""

    def __init__(
        self, running: Running, change: Callable[[dict[str, Array]], dict[str, Array]]
    ) -> None:
        """Have `change` make the outputs of `running` what they are to be. Inference thread."""
        self._running = running
        self._change = change

    def is_done(self) -> bool:
        """Return whether the result takes no wait. Inference thread."""
        return self._running.is_done()

    def result(self) -> dict[str, Array]:
        """Wait for the batch and return its outputs. Inference thread."""
        return self._change(self._running.result())
