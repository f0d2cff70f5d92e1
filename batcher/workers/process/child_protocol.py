"""What supervision asks of one life of a child, and what it is told."""

from __future__ import annotations

from typing import Protocol

from batcher.batching.batch import Batch
from batcher.batching.worker import Outcome
from batcher.models.protocol import Loaded


class Parent(Protocol):
    """Told what becomes of a life. All methods: reactor thread."""

    def reported(self, text: str) -> None:
        """It says what it does while it loads."""

    def loaded(self, loaded: Loaded) -> None:
        """It is ready for batches."""

    def refused(self, reason: str) -> None:
        """The model cannot be loaded; the life ends."""

    def delivered(self, batch: Batch, outcome: Outcome) -> None:
        """The oldest batch is done."""

    def ended(self, life: Child, how: str, begun: int) -> None:
        """It has ended, for a reason in words.

        It may have begun so many of the batches that are not done.
        """


class Child(Protocol):
    """A life as its parent has it. All methods: reactor thread."""

    def start(self) -> None:
        """Start the process, which makes ready for loading."""

    def load(self, with_hooks: bool) -> None:
        """Load the model; with hooks, make its hooks in this process too."""

    def run(self, batch: Batch) -> None:
        """Run `batch` after those before it."""

    def let_begin(self, seconds: float) -> None:
        """Wait up to `seconds` until the batch handed over last is on its way."""

    def quit(self) -> None:
        """End it when what was handed over is done."""

    def kill(self) -> None:
        """End it now."""
