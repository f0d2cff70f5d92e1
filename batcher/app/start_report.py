"""What a person at the terminal sees while models load, and when the server is ready.

Steps are lines of the log. Scripts wait for one line on standard output, which says that the server
is ready.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import click
from rich.console import Console
from rich.status import Status
from twisted.logger import Logger

from batcher import __version__
from batcher.app.first_words import first_words
from batcher.app.log_lines import json_line
from batcher.config.model_file import ModelDefinition

MAX_EXPLAINED = 3
"""Models that a screen has room for."""

_FAILED = "failed: "
"""What the progress of a model begins with that could not be loaded, before the reason."""

_log = Logger()

WriteStage = Callable[[str, str], None]
"""Writes what is being done with a model: the model's title, and that in words."""


class LoadScreen:
    """Shows how models load: a moving line at a terminal, and a line for each stage."""

    def __init__(self, write: WriteStage | None = None) -> None:
        """Write stages by `write`, or to standard error without it."""
        # Asked now: later, standard error is a pipe, whatever it leads to.
        is_terminal = sys.stderr.isatty() or None
        self._console = Console(stderr=True, highlight=False, force_terminal=is_terminal)
        self._write = write or self._print
        self._status: Status | None = None
        self._stages: dict[str, str] = {}
        self._ended = False

    def progress(self, title: str, text: str) -> None:
        """Show what is being done with the model `title`.

        The moving line changes with every text, until the first `stop`.
        """
        # A warm-up reports every batch size; its stage is the text before that.
        stage = text.partition(", batch size")[0]
        if self._console.is_terminal and not self._ended:
            self._status = self._status or self._console.status("")
            self._status.start()
            self._status.update(f"model {title}: {text}")
        if self._stages.get(title) != stage:
            self._stages[title] = stage
            self._write(title, stage)

    def stop(self) -> None:
        """Take the moving line away."""
        self._ended = True
        if self._status is not None:
            self._status.stop()

    def _print(self, title: str, stage: str) -> None:
        self._console.print(f"model {title}: {stage}", markup=False, soft_wrap=True)


class StartReport(LoadScreen):
    """Writes to the log what loads, and to standard output that the server is ready."""

    def __init__(self, log_format: str, explains: bool = False) -> None:
        """Begin to measure the time; with `explains`, say of few models how to ask them."""
        super().__init__(_log_stage)
        self._explains = explains
        self._is_json = log_format == "json"
        self._began = time.monotonic()
        self._is_starting = True

    def progress(self, title: str, text: str) -> None:
        """Show what is being done with the model `title`, as every screen does.

        Why a model has failed is told at the end of the start, once.
        """
        is_reason = self._is_starting and text.startswith(_FAILED)
        super().progress(title, _FAILED.rstrip(": ") if is_reason else text)

    def ready(self, address: str, definitions: Sequence[ModelDefinition]) -> None:
        """Write, in one line, where clients connect; and for people how to ask some models."""
        seconds = time.monotonic() - self._began
        few = self._explains and len(definitions) <= MAX_EXPLAINED
        shown = [each for each in definitions if (few or each.is_single) and not self._is_json]
        words = f"\n\n{first_words(shown, address)}\n" if shown else ""
        # At once: whoever waits for the first line finds the others.
        self._say(f"batcher {__version__} is ready on {address} after {seconds:.1f} s{words}")

    def empty(self, address: str, reasons: Sequence[str]) -> None:
        """Write that the server listens on `address` and has no model, and why."""
        for reason in reasons:
            _log.warn("the model repository is {reason}", reason=reason)
        self._say(f"batcher {__version__} listens on {address}, without a model: not ready")

    def failed(self, reason: str) -> None:
        """Write why the server could not start."""
        self.stop()
        _log.error("batcher cannot start: {reason}", reason=reason)

    def _say(self, text: str) -> None:
        self.stop()
        self._is_starting = False
        click.echo(json_line("info", __name__, text) if self._is_json else text, nl=False)
        if not self._is_json:
            click.echo()


def _log_stage(title: str, stage: str) -> None:
    _log.info("model {model}: {stage}", model=title, stage=stage)
