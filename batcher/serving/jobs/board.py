"""The jobs of a server: which wait, which run, and which have ended.

Jobs run in the order in which they came, `at_once` at a time. Each change of a job is noted on the
disk, so a server that is started again knows its jobs, and goes on with those that ran.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.job_settings import JobSettings
from batcher.core.error_text import message
from batcher.core.spec import ModelSpec
from batcher.errors import (
    Draining,
    InvalidInput,
    OperatorError,
    QueueFull,
    ServerError,
    Unavailable,
    UnknownJob,
)
from batcher.serving.jobs.allowed import allowed_place
from batcher.serving.jobs.entry import JobEntry, JobState, Wanted
from batcher.serving.jobs.journal import FINISHED
from batcher.serving.jobs.notes import JobNotes
from batcher.serving.jobs.output_files import OutputFiles
from batcher.serving.jobs.server_job import JobFiles, OpenedJob, OpenJob, ServerJob
from batcher.serving.jobs.writing import Progress, public_text
from batcher.serving.server import ModelServer
from batcher.workers.pool import CpuPool

_log = Logger()

AGAIN_S = 1.0
"""Seconds before a job that could not go on, and has not failed, begins again."""

MOST_CHECKS = 100
"""Requests for a job whose files are being looked at; a file system may take its time."""

MOST_NOTES = 1000
"""Notes that may wait for a slow disk, besides four of each job."""

_DAY_S = 86_400.0


class JobBoard:
    """Keeps the jobs of one server. Reactor thread.

    Attributes:
        stops: whether the server ends, and nothing more is sent.
    """

    def __init__(
        self,
        settings: JobSettings,
        base: Path,
        server: ModelServer,
        files: JobFiles,
        unix_time: Callable[[], float],
    ) -> None:
        """Know no jobs yet; relative paths in `settings` start from `base`."""
        self._settings = settings
        self._base = base.absolute()
        self._server = server
        open_job = partial(_open_allowed, files.open, settings, self._base)
        self._files, self._unix_time = files._replace(open=open_job), unix_time
        self._entries: dict[str, JobEntry] = {}
        self._running: dict[str, ServerJob] = {}
        self._ends: dict[str, Deferred[None]] = {}
        self._notes = JobNotes(self._base / settings.folder)
        call, clock = server.call_from_thread, server.clock
        self._disk = CpuPool(1, MOST_NOTES + 4 * settings.most, 1, call, clock, "jobs")
        # Apart from notes, for which a flood of clients must leave room.
        self._checks = CpuPool(1, MOST_CHECKS, 1, call, clock, "job-checks")
        self._is_read = self.stops = False
        server.metrics.jobs.states = lambda: _states(self._entries.values())
        server.metrics.jobs.running = lambda: [each.written() for each in self._running.values()]

    def start(self) -> Deferred[None]:
        """Read the notes, and go on with the jobs that have not ended; fires once they are read.

        Until then nobody is told that a job is unknown.
        """
        read: Deferred[Any] = self._disk.run(0, inf, self._notes.read)
        return read.addErrback(_nothing_read).addCallback(self._known)

    def _known(self, entries: list[JobEntry]) -> None:
        # Jobs that clients have made meanwhile come behind those that are older.
        self._entries = {entry.id: entry for entry in entries} | self._entries
        self._is_read = True
        self._go_on()

    def check_read(self) -> None:
        """Check that the notes are read. Raises Unavailable."""
        if not self._is_read:
            raise Unavailable("the jobs of before the start are still being read")

    def create(self, wanted: Wanted) -> Deferred[dict[str, Any]]:
        """Note a job; fires with its status.

        Fails with Forbidden or InvalidInput if its files may not be read or written, and with
        QueueFull if too many jobs wait.
        """
        check = partial(_allowed, wanted, self._settings, self._base)
        return self._checks.run(0, inf, check).addCallback(self.add, f"job-{uuid4().hex}")

    def add(self, wanted: Wanted, id: str) -> Deferred[dict[str, Any]]:
        """Note a job whose files may be read and written; fires with its status.

        Raises QueueFull, InvalidInput, and Draining.
        """
        if self.stops:
            raise Draining("the server is being stopped and takes no more jobs")
        self.sweep(1)
        taken = {each.wanted.output for each in self._entries.values() if not each.has_ended}
        if _files_of(wanted.output) & {file for each in taken for file in _files_of(each)}:
            raise InvalidInput(f"output: another job writes {wanted.output}")
        if len(self._entries) >= self._settings.most:
            raise QueueFull(f"{self._settings.most} jobs (jobs.most) have not ended yet")
        entry = JobEntry(id, wanted, self._unix_time())
        self._entries[entry.id] = entry
        noted = self._note(entry)
        self._go_on()
        return noted.addCallback(lambda _: self._status(entry))

    def list(self, most: int | None = None, owner: str | None = None) -> list[dict[str, Any]]:
        """Return the status of every job, or of the newest `most`, the newest first.

        With `owner` only batches of that one are listed.
        """
        entries = islice(reversed(self._entries.values()), most)
        return [self._status(each) for each in entries if owner is None or each.is_of(owner)]

    def status(self, id: str) -> dict[str, Any]:
        """Return the status of a job. Raises UnknownJob, Unavailable."""
        return self._status(self._found(id))

    def cancel(self, id: str) -> Deferred[dict[str, Any]]:
        """End a job and remove what it has written; fires with its status once that is done.

        Nothing happens to a job that has ended. Raises UnknownJob, Unavailable.
        """
        entry = self._found(id)
        running = self._running.get(id)
        if running is not None:
            entry.cancelling = self._unix_time()
            running.cancelled = True
            running.stop()
            ended: Deferred[dict[str, Any]] = Deferred()
            self._ends[id].addCallback(lambda _: ended.callback(self._status(entry)))
            return ended
        if not entry.has_ended:
            self._end(entry, JobState.CANCELLED)
        return succeed(self._status(entry))

    def remove(self, id: str) -> Deferred[None]:
        """Forget a job that has ended. Raises UnknownJob, InvalidInput, Unavailable.

        Its output stays; that of a batch, which only the batch names, is removed.
        """
        entry = self._found(id)
        if not entry.has_ended:
            raise InvalidInput(f"job {id}: expected one that has ended: cancel it first")
        removed = self._disk.run(0, inf, partial(_forget, self._notes, entry))
        del self._entries[id]
        return removed

    def stop(self) -> Deferred[Any]:
        """Send nothing more; fires when the journal of each job is written."""
        self.stops = True
        ends = list(self._ends.values())
        for running in list(self._running.values()):
            running.stop()
        return DeferredList(ends).addCallback(self._stopped)

    def _stopped(self, _: object) -> Deferred[Any]:
        # Behind all notes that wait, since one thread writes them.
        self._checks.stop()
        last: Deferred[Any] = maybeDeferred(self._disk.run, 0, inf, lambda: None)
        return last.addBoth(lambda _: self._disk.stop())

    def _found(self, id: str) -> JobEntry:
        self.check_read()
        entry = self._entries.get(id)
        if entry is None:
            raise UnknownJob(f"expected the id of a job; got {id[:100]!r}")
        return entry

    def _status(self, entry: JobEntry) -> dict[str, Any]:
        running = self._running.get(entry.id)
        if running is not None:
            entry.progress = running.progress
        return entry.status(self._unix_time())

    def _go_on(self) -> None:
        """Run the jobs that have waited longest, as far as there is room."""
        for entry in list(self._entries.values()):
            if self.stops or len(self._running) >= self._settings.at_once:
                return
            if entry.state is JobState.QUEUED:
                self._run(entry)

    def _run(self, entry: JobEntry) -> None:
        entry.become(JobState.RUNNING)
        entry.began = self._unix_time()
        entry.before = entry.progress
        self._note(entry)
        began = partial(self._note, entry)
        running = ServerJob(entry, self._server, self._files, began)
        self._running[entry.id] = running
        self._ends[entry.id] = Deferred()
        running.run().addBoth(self._ran, entry, running)

    def _ran(self, result: Progress | Failure, entry: JobEntry, running: ServerJob) -> None:
        del self._running[entry.id]
        entry.progress = running.progress
        if isinstance(result, Failure):
            entry.error = _reason(result.value, entry)
            _log.warn("job {id} has failed: {why}", id=entry.id, why=message(result.value))
            self._end(entry, JobState.FAILED)
        elif result.stage in FINISHED:
            entry.progress = result
            self._end(entry, JobState.DONE)
        elif running.cancelled:
            self._end(entry, JobState.CANCELLED)
        else:
            entry.become(JobState.QUEUED)
            self._note(entry)
        # Later: a job that cannot go on at the moment would be begun again and again.
        if not self.stops:
            wait = AGAIN_S if entry.state is JobState.QUEUED else 0.0
            self._server.clock.callLater(wait, self._go_on)
        self._server.metrics.jobs.count(*entry.written(entry.progress))
        self._ends.pop(entry.id).callback(None)

    def _end(self, entry: JobEntry, state: JobState) -> None:
        entry.become(state)
        entry.ended = self._unix_time()
        self._note(entry)

    def _note(self, entry: JobEntry) -> Deferred[Any]:
        note = json.dumps(entry.note()).encode()
        # Never raises: a job goes on where its note cannot be written.
        write = partial(self._notes.write, entry.id, note)
        return maybeDeferred(self._disk.run, 0, inf, write).addErrback(_log_failure)

    def sweep(self, room: int = 0) -> None:
        """Forget jobs that ended long ago, and those that ended first until there is `room`."""
        latest = self._unix_time() - self._settings.keep_days * _DAY_S
        ended = sorted((entry.ended, entry.id) for entry in self._entries.values() if entry.ended)
        too_many = len(self._entries) - self._settings.most + room
        for number, (when, id) in enumerate(ended):
            if when < latest or number < too_many:
                maybeDeferred(self.remove, id).addErrback(_log_failure)


def _allowed(wanted: Wanted, settings: JobSettings, base: Path) -> Wanted:
    """Return what is wanted, as it is to be opened. Disk thread."""
    if wanted.batch is not None:
        return wanted  # places of the server's own
    source = allowed_place(wanted.input, settings.inputs, base, "input")
    output = allowed_place(wanted.output, settings.outputs, base, "output")
    return wanted._replace(input=source, output=output)


def _open_allowed(
    open_job: OpenJob,
    settings: JobSettings,
    base: Path,
    wanted: Wanted,
    spec: ModelSpec,
    identity: dict[str, Any],
) -> OpenedJob:
    """Open a job whose places are still allowed. A thread of the job.

    A job may have waited since before a restart, and somebody may have put a link in a place.
    """
    return open_job(_allowed(wanted, settings, base), spec, identity)


def _forget(notes: JobNotes, entry: JobEntry) -> None:
    """Remove the note of a job, and the output of a batch before it. Disk thread."""
    if entry.wanted.batch is not None:
        OutputFiles(Path(entry.wanted.output), [""]).remove()
    notes.remove(entry.id)


def _reason(error: object, entry: JobEntry) -> str:
    """Return why a job failed; of a model and of the server no more than in any answer."""
    if entry.wanted.batch is not None and isinstance(error, OperatorError):
        return "the server could not run the batch; its log says why"  # with places of its own
    return public_text(error) if isinstance(error, ServerError) else message(error)


def _states(entries: Iterable[JobEntry]) -> Mapping[str, int]:
    """Return the number of jobs in each state."""
    counts = Counter(entry.state.value for entry in entries)
    return {state.value: counts[state.value] for state in JobState}


def _files_of(output: str) -> set[str]:
    """Return what a job writes that another job could name as its output."""
    return {output, f"{output}.errors.jsonl"}


def _nothing_read(failure: Failure) -> list[JobEntry]:
    _log_failure(failure)
    return []


def _log_failure(failure: Failure) -> None:
    _log.error("jobs: {why}", why=failure.getErrorMessage())
