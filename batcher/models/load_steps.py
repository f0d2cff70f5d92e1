"""What a model tells of its load, and of what it does later as in a load: compiling for a batch.

A worker that is started again loads its model while the version serves, so the words themselves say
which of the two it is.
"""

from __future__ import annotations

from typing import Final

from batcher.models.protocol import Progress

AFTER_LOAD: Final = "after the load: "
"""The beginning of what a model tells once it is loaded."""

COMPILING: Final = "compiling"
"""The beginning of what a model tells when a part of it is compiled."""


class LoadSteps:
    """Hands what a model tells to `progress`; inference thread.

    Attributes:
        are_over: whether the model is loaded.
    """

    def __init__(self, progress: Progress) -> None:
        """Hand texts to `progress`."""
        self._progress = progress
        self.are_over = False

    def __call__(self, text: str) -> None:
        """Tell `text`, and whether the load was over."""
        self._progress(AFTER_LOAD + text if self.are_over else text)
