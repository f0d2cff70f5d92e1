"""What a person at the terminal sees while models load."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from rich.console import Console
from rich.status import Status

from batcher import __version__
from batcher.app.first_words import first_words
from batcher.config.model_file import ModelDefinition

MAX_EXPLAINED = 3
"""Models that a screen has room for."""


class StartReport:
    """Writes to standard error what loads, and to standard output that the server is ready.

    Scripts wait for that one line on standard output.
    """

    def __init__(self, explains: bool = False) -> None:
        """Begin to measure the time; with `explains`, say of few models how to ask them."""
        self._explains = explains
        # Asked now: later, standard error is a pipe, whatever it leads to.
        is_terminal = sys.stderr.isatty() or None
        self._console = Console(stderr=True, highlight=False, force_terminal=is_terminal)
        self._status: Status | None = None
        self._stages: dict[str, str] = {}
        self._began = time.monotonic()
        self._is_ready = False

    def progress(self, title: str, text: str) -> None:
        """Show what is being done with the model `title`.

        A terminal has a moving line, which changes with every text. Below it, and where there is no
        terminal, stands one line for each stage.
        """
        # A warm-up reports every batch size; its stage is the text before that.
        stage = text.partition(", batch size")[0]
        if self._console.is_terminal and not self._is_ready:
            self._status = self._status or self._console.status("")
            self._status.start()
            self._status.update(f"model {title}: {text}")
        if self._stages.get(title) != stage:
            self._stages[title] = stage
            seconds = time.monotonic() - self._began
            line = f"model {title}: {stage} ({seconds:.1f} s)"
            self._console.print(line, markup=False, soft_wrap=True)

    def ready(self, address: str, definitions: Sequence[ModelDefinition]) -> None:
        """Write, in one line, where clients connect; and of some models how to ask them."""
        self.stop()
        self._is_ready = True
        seconds = time.monotonic() - self._began
        few = self._explains and len(definitions) <= MAX_EXPLAINED
        shown = [each for each in definitions if few or each.is_single]
        words = f"\n\n{first_words(shown, address)}\n" if shown else ""
        # At once: whoever waits for the first line finds the others.
        click.echo(f"batcher {__version__} is ready on {address} after {seconds:.1f} s{words}")

    def empty(self, address: str, reasons: Sequence[str]) -> None:
        """Write that the server listens on `address` and has no model, and why."""
        self.stop()
        self._is_ready = True
        for reason in reasons:
            click.echo(f"the model repository is {reason}", err=True)
        click.echo(f"batcher {__version__} listens on {address}, without a model: not ready")

    def failed(self, reason: str) -> None:
        """Write why the server cannot start."""
        self.stop()
        click.echo(f"batcher cannot start: {reason}", err=True)

    def stop(self) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()
