"""What supervision asks of one child, and what supervision hears of that child.

A child lives once: it starts, loads the model, runs batches and ends. A restart makes a new child.
"""

from __future__ import annotations

from typing import Protocol

from batcher.batching.batch import Batch
from batcher.batching.worker import Outcome
from batcher.models.protocol import LoadedModel


class Parent(Protocol):
    """Hears what becomes of a child, from start to end."""

    def reported(self, text: str) -> None:
        """Hear in words what the child does while the model loads. Reactor thread."""

    def load_paused(self) -> None:
        """Hear that the load waits for another process, and others may load. Reactor thread."""

    def loaded(self, loaded: LoadedModel) -> None:
        """Hear that the model is loaded and the child ready for batches. Reactor thread."""

    def load_failed(self, reason: str, stage: str) -> None:
        """Hear why the model cannot be loaded, and in which stage; the child ends.

        Reactor thread.
        """

    def delivered(self, batch: Batch, outcome: Outcome) -> None:
        """Hear what became of `batch`, the oldest that the child had. Reactor thread."""

    def ended(self, child: Child, how: str, begun: int) -> None:
        """Hear in words how `child` ended.

        Of the batches that it has not delivered it may have begun the first `begun`. Reactor
        thread.
        """


class Child(Protocol):
    """A child as supervision sees it."""

    def start(self) -> None:
        """Start the process, which imports what the model needs. Reactor thread."""

    def load(self) -> None:
        """Load the model. Reactor thread."""

    def run(self, batch: Batch) -> None:
        """Run `batch` after those before it. Reactor thread."""

    def let_begin(self, seconds: float) -> None:
        """Wait up to `seconds` until the child was sent the last batch. Reactor thread."""

    def quit(self) -> None:
        """End the child once it has delivered every batch. Reactor thread."""

    def kill(self) -> None:
        """End the child now. Reactor thread."""
