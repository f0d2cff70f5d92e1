"""What a person sees of a job: a moving line at a terminal, elsewhere a line now and then.

    time left = seconds so far * (1 - done) / (done - done at the start)

Example: after 60 s a job is at 30 %; it went on at 10 %. 60 * 0.7 / 0.2 = 210 s are left.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

from rich.console import Console
from rich.status import Status

from batcher.serving.jobs.journal import FINISHED
from batcher.serving.jobs.writing import Progress

LINE_S = 10.0
"""Seconds between two lines where there is no terminal."""

LEAST_S = 1.0
"""Seconds before a rate says anything."""


class JobScreen:
    """Writes to standard error."""

    def __init__(self, before: Progress) -> None:
        """Begin behind what an earlier run has done, `before`."""
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._before = before
        self._began = self._said = monotonic()

    def say(self, text: str) -> None:
        """Show a text."""
        if self._console.is_terminal:
            self._status = self._status or self._console.status("")
            self._status.start()
            self._status.update(text)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        # A terminal that was closed ends no job.
        with suppress(OSError):
            self._console.print(text, markup=False, soft_wrap=True)

    def begin(self) -> None:
        """Measure from now on."""
        self._began = self._said = monotonic()
        if self._before.rows:
            self._print(f"going on behind row {self._before.rows:,}")

    def show(self, progress: Progress) -> None:
        """Show how far the job is."""
        now = monotonic()
        if not self._console.is_terminal and now - self._said < LINE_S:
            return
        self._said = now
        self.say(progress_text(progress, self._before, now - self._began))

    def end(self, progress: Progress) -> str:
        """Show nothing that moves, and return how fast it was; empty if it was too short to say."""
        if self._status is not None:
            self._status.stop()
        seconds = monotonic() - self._began
        rows = progress.rows - self._before.rows
        return f", {rows / seconds:,.0f} rows/s" if seconds >= LEAST_S else ""


def progress_text(progress: Progress, before: Progress, seconds: float) -> str:
    """Return how far a job is that has run for `seconds` since it was at `before`."""
    text = f"{progress.done:.0%}  {progress.rows:,} rows"
    if progress.failed:
        text += f", {progress.failed:,} without an answer"
    done, rows = progress.done - before.done, progress.rows - before.rows
    if seconds < LEAST_S or not rows:
        return text
    text += f"  {rows / seconds:,.0f} rows/s"
    return f"{text}  {_time(seconds * (1 - progress.done) / done)} left" if done > 0 else text


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ended_text(progress: Progress, output: str) -> str:
    """Return how a job has ended whose output is `output`."""
    if progress.stage not in FINISHED:
        return f"stopped behind row {progress.rows:,}: the same command goes on from there"
    if not progress.failed:
        return f"{progress.rows:,} rows in {output}"
    return (
        f"completed with errors: {progress.failed:,} of {progress.rows:,} rows have no answer, see "
        f"{output}.errors.jsonl"
    )
