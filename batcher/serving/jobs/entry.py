"""What a server notes of a job: what was asked for, and how far it is.

QUEUED --> RUNNING --> DONE         each row has an answer, or an error in the file of errors
  |  ^        |  |---> FAILED       the job could not begin or go on
  |  `--------'  |                  (the server ended: the job goes on after its next start)
  `------------- +---> CANCELLED    a client has ended it
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from batcher.core.states import StateTable
from batcher.serving.jobs.writing import Progress


class JobState(Enum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDS = {JobState.DONE, JobState.FAILED, JobState.CANCELLED}
STATES = StateTable(
    {
        JobState.QUEUED: {JobState.RUNNING, JobState.FAILED, JobState.CANCELLED},
        JobState.RUNNING: {JobState.QUEUED, *_ENDS},
        JobState.DONE: set(),
        JobState.FAILED: set(),
        JobState.CANCELLED: set(),
    },
    "{owner}: {old} cannot become {new}",
)
"""From each state, the states that may follow."""


class Wanted(NamedTuple):
    """What a client asks for.

    Attributes:
        model: name of the model.
        version: its version; empty for the newest that is ready when the job begins.
        input: path or address of what is read.
        output: path or address of what is written.
        csv_header: `present`, `absent`, or empty where the file shows it.
        restart: whether what an earlier job left there is removed first.
        batch: what a batch in OpenAI's form is besides (`batches.py`); None for any other job.
    """

    model: str
    version: str
    input: str
    output: str
    csv_header: str = ""
    restart: bool = False
    batch: dict[str, Any] | None = None


class JobEntry:
    """One job of a server. Reactor thread.

    Attributes:
        id: the job's name in paths.
        wanted: what was asked for.
        created: when, in Unix seconds.
        state: where the job is.
        version: the version that answers; empty before the job began.
        progress: how far the job is.
        error: why it failed; empty if it did not.
        began: when it began to run last, in Unix seconds; None before.
        ended: when it ended; None before.
        before: how far earlier runs had come when this run began.
        cancelling: when a client has cancelled it, in Unix seconds; None before.
    """

    def __init__(self, id: str, wanted: Wanted, created: float) -> None:
        """Begin as a job that waits."""
        self.id = id
        self.wanted = wanted
        self.created = created
        self.state = JobState.QUEUED
        self.version = wanted.version
        self.progress = Progress(0, 0, 0.0, "")
        self.error = ""
        self.began: float | None = None
        self.ended: float | None = None
        self.before = self.progress
        self.cancelling: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in _ENDS

    def is_of(self, owner: str) -> bool:
        """Return whether this is a batch of `owner`."""
        batch = self.wanted.batch
        return batch is not None and batch["owner"] == owner

    def become(self, state: JobState) -> None:
        """Go to `state`, which the table must allow."""
        self.state = STATES.step(self.state, state, f"job {self.id}")

    def rate(self, now: float) -> float:
        """Return rows a second of this run; 0 where that is not known."""
        end = now if self.ended is None else self.ended
        if self.began is None or end <= self.began:
            return 0.0
        return (self.progress.rows - self.before.rows) / (end - self.began)

    def written(self, progress: Progress) -> tuple[int, int]:
        """Return the rows that this run, now at `progress`, has written, and the failed of them."""
        rows = max(progress.rows - self.before.rows, 0)
        return rows, min(max(progress.failed - self.before.failed, 0), rows)

    def status(self, now: float) -> dict[str, Any]:
        """Return what clients read, as a value that JSON can hold; `now` is in Unix seconds."""
        rate, left = self.rate(now), None
        if self.state is JobState.RUNNING and rate > 0 and self.progress.done > 0:
            left = self.progress.rows / self.progress.done * (1 - self.progress.done) / rate
        wanted = self.wanted._asdict()
        batch = wanted.pop("batch")
        if batch is not None:
            own = {"stage": self.progress.stage, "cancelling": self.cancelling}
            wanted["batch"] = batch | own | {"began": self.began}
        return {
            "id": self.id,
            "state": self.state.value,
            **wanted,
            "version": self.version,
            "rows": self.progress.rows,
            "failed_rows": self.progress.failed,
            "done": self.progress.done,
            "rows_per_s": round(rate, 1),
            "seconds_left": None if left is None else round(left, 1),
            "error": self.error,
            "created": self.created,
            "ended": self.ended,
        }

    def note(self) -> dict[str, Any]:
        """Return what the server must know after a restart."""
        return {
            "id": self.id,
            "wanted": self.wanted._asdict(),
            "created": self.created,
            "state": self.state.value,
            "version": self.version,
            "progress": self.progress._asdict(),
            "error": self.error,
            "ended": self.ended,
        }


def entry_of(note: dict[str, Any]) -> JobEntry:
    """Return the job that `note` is of; one that ran waits.

    Raises KeyError, TypeError, ValueError: it is no note.
    """
    entry = JobEntry(str(note["id"]), Wanted(**note["wanted"]), float(note["created"]))
    state = JobState(note["state"])
    entry.state = JobState.QUEUED if state is JobState.RUNNING else state
    entry.version = str(note["version"])
    entry.progress = Progress(**note["progress"])
    entry.error = str(note["error"])
    entry.ended = note["ended"]
    return entry
